//! Why something failed, in the words of whatever failed first.

use std::error::Error;

/// The innermost reason of an error: libraries wrap "connection refused" in three sentences
/// that say no more than that something could not be done.
pub fn innermost<'a>(error: &'a (dyn Error + 'static)) -> &'a (dyn Error + 'static) {
    let mut cause = error;
    while let Some(source) = cause.source() {
        cause = source;
    }
    cause
}

/// An error with all its reasons, each said once: many an error's own words end with those of
/// what caused it.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut told = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        let text = reason.to_string();
        if !told.contains(&text) {
            told.push_str(": ");
            told.push_str(&text);
        }
        cause = reason.source();
    }
    told
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug)]
    struct Wrapped(std::io::Error);

    impl std::fmt::Display for Wrapped {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            f.write_str("a request could not be sent")
        }
    }

    impl Error for Wrapped {
        fn source(&self) -> Option<&(dyn Error + 'static)> {
            Some(&self.0)
        }
    }

    #[test]
    fn each_reason_is_said_once() {
        let wrapped = || Wrapped(std::io::Error::other("connection refused"));
        assert_eq!(chain(&wrapped()), "a request could not be sent: connection refused");
        let telling = std::io::Error::other(wrapped());
        assert_eq!(chain(&telling), "a request could not be sent: connection refused");
    }

    #[test]
    fn the_first_failure_is_named() {
        let error = Wrapped(std::io::Error::other("connection refused"));
        assert_eq!(innermost(&error).to_string(), "connection refused");
    }
}
