//! How a remote command ended, as the error channel tells it.

use serde_json::json;

/// How a remote command ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It ran and gave this exit code.
    Exited(i32),
    /// It could not be run, or was lost.
    Failed {
        /// In words, for the user.
        message: String,
        /// `metav1.StatusReason`, such as `InternalError`.
        reason: String,
        /// HTTP status code.
        code: u16,
    },
}

/// How a protocol version writes an outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OutcomeFormat {
    /// From v4 on: always a `metav1.Status`.
    Status,
    /// Before: a line of text, and nothing for success.
    Text,
}

impl Outcome {
    /// An internal error.
    pub fn internal(message: impl Into<String>) -> Self {
        Self::Failed { message: message.into(), reason: "InternalError".to_owned(), code: 500 }
    }

    pub(crate) fn encode(&self, format: OutcomeFormat) -> Vec<u8> {
        match format {
            OutcomeFormat::Status => self.status().to_string().into_bytes(),
            OutcomeFormat::Text => self.text().into_bytes(),
        }
    }

    fn status(&self) -> serde_json::Value {
        match self {
            Self::Exited(0) => json!({"metadata": {}, "status": "Success"}),
            Self::Exited(code) => json!({
                "metadata": {},
                "status": "Failure",
                "message": self.text(),
                "reason": "NonZeroExitCode",
                "details": {"causes": [{"reason": "ExitCode", "message": code.to_string()}]},
            }),
            Self::Failed { message, reason, code } => {
                json!({"metadata": {}, "status": "Failure", "message": message, "reason": reason, "code": code})
            }
        }
    }

    fn text(&self) -> String {
        match self {
            Self::Exited(0) => String::new(),
            Self::Exited(code) => format!("command terminated with non-zero exit code: exit status {code}"),
            Self::Failed { message, .. } => message.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubectl_finds_the_exit_code_in_the_status() {
        let encode = |outcome: Outcome| String::from_utf8(outcome.encode(OutcomeFormat::Status)).unwrap();
        insta::assert_snapshot!(encode(Outcome::Exited(0)), @r#"{"metadata":{},"status":"Success"}"#);
        insta::assert_snapshot!(encode(Outcome::Exited(3)), @r#"{"details":{"causes":[{"message":"3","reason":"ExitCode"}]},"message":"command terminated with non-zero exit code: exit status 3","metadata":{},"reason":"NonZeroExitCode","status":"Failure"}"#);
        insta::assert_snapshot!(encode(Outcome::internal("lost")), @r#"{"code":500,"message":"lost","metadata":{},"reason":"InternalError","status":"Failure"}"#);
    }

    #[test]
    fn old_protocols_have_text_and_nothing_for_success() {
        assert!(Outcome::Exited(0).encode(OutcomeFormat::Text).is_empty());
        assert!(!Outcome::Exited(1).encode(OutcomeFormat::Text).is_empty());
    }
}
