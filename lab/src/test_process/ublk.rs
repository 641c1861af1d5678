//! A server of a block device in user space, in the process of its client.

use std::fs::File;
use std::io;
use std::path::Path;
use std::thread;
use std::time::Duration;

use ironclad_syscalls::{add_ublk, serve_ublk, start_ublk};

/// Serves `path` as `/dev/ublkb0` until the process ends.
pub(super) fn serve(path: &Path) -> io::Result<()> {
    let open = |path: &Path| File::options().read(true).write(true).open(path);
    let (control, file) = (open(Path::new("/dev/ublk-control"))?, open(path)?);
    add_ublk(&control, file.metadata()?.len())?;
    let device = Path::new("/dev/ublkc0");
    while !device.exists() {
        thread::sleep(Duration::from_millis(20));
    }
    let device = open(device)?;
    thread::spawn(move || serve_ublk(&device, &file));
    // Waits until every request can be served.
    start_ublk(&control)
}
