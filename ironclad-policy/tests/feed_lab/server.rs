//! A web server on 127.0.0.1 that says what a test wants it to say, and ends with the test.

use std::io::{self, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use rustls::{ServerConfig, ServerConnection, StreamOwned};

/// No read and no write takes longer, whatever goes wrong.
const PATIENCE: Duration = Duration::from_secs(20);

/// A request as it arrived: the first line's path, and the headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) path: String,
    head: String,
}

impl Request {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().skip(1);
        lines.filter_map(|line| line.split_once(": ")).find(|(key, _)| *key == name).map(|(_, v)| v)
    }
}

type Handler = dyn Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync;

#[derive(Default)]
struct Shared {
    stopped: AtomicBool,
    requests: Mutex<Vec<Request>>,
    streams: Mutex<Vec<TcpStream>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
}

pub(crate) struct Server {
    address: SocketAddr,
    scheme: &'static str,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

impl Server {
    pub(crate) fn start(
        tls: Option<Arc<ServerConfig>>,
        handler: impl Fn(&Request, &mut Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared::default());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let (ours, handler): (_, Arc<Handler>) = (Arc::clone(&shared), Arc::new(handler));
        let accepting = thread::spawn(move || {
            for stream in listener.incoming() {
                if ours.stopped.load(Ordering::SeqCst) {
                    return;
                }
                let stream = stream.unwrap();
                stream.set_read_timeout(Some(PATIENCE)).unwrap();
                stream.set_write_timeout(Some(PATIENCE)).unwrap();
                ours.streams.lock().unwrap().push(stream.try_clone().unwrap());
                let (shared, handler) = (Arc::clone(&ours), Arc::clone(&handler));
                let mut connection = Connection::new(stream, tls.as_ref());
                let serve = thread::spawn(move || {
                    // The client hangs up when it likes: that is what it is tested for.
                    if let Ok(request) = connection.request() {
                        shared.requests.lock().unwrap().push(request.clone());
                        let _ = handler(&request, &mut connection);
                    }
                    connection.end();
                });
                ours.threads.lock().unwrap().push(serve);
            }
        });
        Self { address, scheme, shared, accepting: Some(accepting) }
    }

    pub(crate) fn url(&self, path: &str) -> String {
        format!("{}://{}{path}", self.scheme, self.address)
    }

    pub(crate) fn port(&self) -> u16 {
        self.address.port()
    }

    /// The requests so far.
    pub(crate) fn requests(&self) -> Vec<Request> {
        self.shared.requests.lock().unwrap().clone()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.stopped.store(true, Ordering::SeqCst);
        // One more connection wakes the thread that waits for it.
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            let _ = accepting.join();
        }
        for stream in self.shared.streams.lock().unwrap().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
        for thread in self.shared.threads.lock().unwrap().drain(..) {
            let _ = thread.join();
        }
    }
}

pub(crate) enum Connection {
    Plain(TcpStream),
    Tls(Box<StreamOwned<ServerConnection, TcpStream>>),
}

impl Connection {
    fn new(stream: TcpStream, tls: Option<&Arc<ServerConfig>>) -> Self {
        match tls {
            None => Self::Plain(stream),
            Some(config) => {
                let server = ServerConnection::new(Arc::clone(config)).unwrap();
                Self::Tls(Box::new(StreamOwned::new(server, stream)))
            }
        }
    }

    fn request(&mut self) -> io::Result<Request> {
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") {
            match self {
                Self::Plain(stream) => stream.read_exact(&mut byte)?,
                Self::Tls(stream) => stream.read_exact(&mut byte)?,
            }
            head.push(byte[0]);
        }
        let head = String::from_utf8(head).map_err(io::Error::other)?;
        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
        let lines = head.lines().map(|line| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
            None => format!("{line}\n"),
        });
        Ok(Request { path, head: lines.collect() })
    }

    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        match self {
            Self::Plain(stream) => stream.write_all(bytes.as_ref()),
            Self::Tls(stream) => {
                stream.write_all(bytes.as_ref())?;
                stream.flush()
            }
        }
    }

    /// An answer as it should be. `headers` are lines without their ends.
    pub(crate) fn answer(
        &mut self,
        status: u16,
        headers: &[&str],
        body: impl AsRef<[u8]>,
    ) -> io::Result<()> {
        let body = body.as_ref();
        let headers: String = headers.iter().map(|line| format!("{line}\r\n")).collect();
        self.send(format!(
            "HTTP/1.1 {status} x\r\n{headers}Content-Length: {}\r\n\r\n",
            body.len()
        ))?;
        self.send(body)
    }

    /// Whether the client hangs up before `time` is over.
    pub(crate) fn hung_up_within(&mut self, time: Duration) -> bool {
        let stream = self.tcp();
        stream.set_read_timeout(Some(time)).unwrap();
        match stream.peek(&mut [0]) {
            Ok(0) => true,
            Ok(_) => false,
            Err(error) => {
                !matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut)
            }
        }
    }

    /// Waits until the client hangs up.
    pub(crate) fn wait(&mut self) {
        self.hung_up_within(PATIENCE);
    }

    /// Ends the connection without any word of it.
    pub(crate) fn cut(&mut self) {
        let _ = self.tcp().shutdown(Shutdown::Both);
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(stream) => stream,
            Self::Tls(stream) => &stream.sock,
        }
    }

    fn end(&mut self) {
        if let Self::Tls(stream) = self {
            stream.conn.send_close_notify();
            let _ = stream.flush();
        }
        // What the client has not read yet stays readable for it, unlike after a close.
        let _ = self.tcp().shutdown(Shutdown::Write);
        self.hung_up_within(Duration::from_secs(1));
    }
}
