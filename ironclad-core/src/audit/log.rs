use std::error::Error;
use std::fmt;
use std::sync::Arc;

use super::{AuditAction, AuditError, AuditSink};
use crate::ErrorChain;

/// The audit records of one instance: its name, and the sink that the embedder chose.
///
/// Each record is also logged by `tracing`.
#[derive(Clone)]
pub struct AuditLog {
    instance: Arc<str>,
    sink: Arc<dyn AuditSink>,
}

impl AuditLog {
    /// Records of `instance` go to `sink`.
    pub fn new(instance: impl Into<Arc<str>>, sink: Arc<dyn AuditSink>) -> Self {
        Self { instance: instance.into(), sink }
    }

    /// The instance.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// The sink.
    pub fn sink(&self) -> &dyn AuditSink {
        &*self.sink
    }

    /// Logs an action at level info, and records it.
    ///
    /// # Errors
    /// [`AuditError`] of the sink.
    pub fn record(&self, action: &AuditAction) -> Result<(), AuditError> {
        tracing::info!(instance = self.instance(), "{action}");
        self.sink.record(&self.instance, action)
    }

    /// Returns `result`. Where it is an error, records [`AuditAction::Refuse`] of `program` before, with the
    /// error and its causes.
    ///
    /// A sink that fails is logged: the error of `result` is the one to return.
    ///
    /// # Errors
    /// The error of `result`.
    pub fn refused<T, E: Error + 'static>(
        &self,
        program: &str,
        result: Result<T, E>,
    ) -> Result<T, E> {
        result.inspect_err(|error| {
            let reason = ErrorChain::new(error).to_string();
            let action = AuditAction::Refuse { program: program.to_owned(), reason };
            if let Err(failed) = self.sink.record(&self.instance, &action) {
                tracing::error!(instance = self.instance(), %failed, "{action}");
            }
        })
    }
}

impl fmt::Debug for AuditLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("AuditLog").field("instance", &self.instance).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::Mutex;

    use super::*;

    #[derive(Default)]
    struct Recorder(Mutex<Vec<(String, AuditAction)>>);

    impl AuditSink for Recorder {
        fn record(&self, instance: &str, action: &AuditAction) -> Result<(), AuditError> {
            self.0.lock().unwrap().push((instance.to_owned(), action.clone()));
            Ok(())
        }
    }

    struct Full;

    impl AuditSink for Full {
        fn record(&self, _instance: &str, _action: &AuditAction) -> Result<(), AuditError> {
            Err(AuditError("the disk is full".to_owned()))
        }
    }

    #[test]
    fn a_refused_program_is_recorded_and_its_error_returned() {
        let recorder = Arc::new(Recorder::default());
        let log = AuditLog::new("edge", Arc::clone(&recorder) as Arc<dyn AuditSink>);
        assert_eq!(log.refused::<_, io::Error>("ic_xdp", Ok(1)).unwrap(), 1);
        let error = io::Error::from_raw_os_error(1);
        let reason = error.to_string();
        let returned = log.refused::<(), _>("ic_xdp", Err(error)).unwrap_err();
        assert_eq!(returned.raw_os_error(), Some(1));
        let action = AuditAction::Refuse { program: "ic_xdp".to_owned(), reason };
        assert_eq!(*recorder.0.lock().unwrap(), [("edge".to_owned(), action)]);
    }

    #[test]
    fn a_sink_that_fails_hides_no_refusal() {
        let log = AuditLog::new("edge", Arc::new(Full));
        let error = io::Error::from_raw_os_error(7);
        let returned = log.refused::<(), _>("ic_xdp", Err(error)).unwrap_err();
        assert_eq!(returned.raw_os_error(), Some(7));
        let unpin = AuditAction::Unpin { path: "/".to_owned() };
        assert!(log.record(&unpin).is_err());
    }
}
