//! `test`, `[` and `[[`.

use brush_parser::ast::{BinaryPredicate as Binary, ExtendedTestExpr, TestExpr, UnaryPredicate as Unary};
use futures::future::BoxFuture;
use meshlab_program::{FileType, Metadata};

use super::expand::pattern_regex;
use super::state::{Flow, Shell};

/// The most words of one `test`; the parser is recursive.
const MAX_WORDS: usize = 60;

impl Shell {
    /// `test WORDS`; the error is a message.
    pub(super) fn test(&self, words: &[String]) -> Result<bool, String> {
        if words.len() > MAX_WORDS {
            return Err("too many arguments".to_owned());
        }
        let expression =
            brush_parser::test_command::parse(words).map_err(|_| format!("{}: unexpected operator", words.join(" ")))?;
        self.test_expression(&expression)
    }

    fn test_expression(&self, expression: &TestExpr) -> Result<bool, String> {
        match expression {
            TestExpr::False => Ok(false),
            TestExpr::Literal(text) => Ok(!text.is_empty()),
            TestExpr::And(left, right) => Ok(self.test_expression(left)? && self.test_expression(right)?),
            TestExpr::Or(left, right) => Ok(self.test_expression(left)? || self.test_expression(right)?),
            TestExpr::Not(inner) => self.test_expression(inner).map(|holds| !holds),
            TestExpr::Parenthesized(inner) => self.test_expression(inner),
            TestExpr::UnaryTest(predicate, operand) => self.unary(predicate, operand),
            TestExpr::BinaryTest(predicate, left, right) => self.binary(predicate, left, right),
        }
    }

    /// `[[ … ]]`, whose words are expanded without splitting and whose `==` takes a pattern.
    pub(super) fn extended_test<'a>(
        &'a mut self,
        expression: &'a ExtendedTestExpr,
    ) -> BoxFuture<'a, Result<Result<bool, String>, Flow>> {
        Box::pin(async move {
            let holds = match expression {
                ExtendedTestExpr::And(left, right) => match self.extended_test(left).await? {
                    Ok(true) => return self.extended_test(right).await,
                    other => other,
                },
                ExtendedTestExpr::Or(left, right) => match self.extended_test(left).await? {
                    Ok(false) => return self.extended_test(right).await,
                    other => other,
                },
                ExtendedTestExpr::Not(inner) => self.extended_test(inner).await?.map(|holds| !holds),
                ExtendedTestExpr::Parenthesized(inner) => self.extended_test(inner).await?,
                ExtendedTestExpr::UnaryTest(predicate, operand) => match self.expand_to_text(&operand.value).await? {
                    Ok(operand) => self.unary(predicate, &operand),
                    Err(message) => Err(message),
                },
                ExtendedTestExpr::BinaryTest(predicate, left, right) => {
                    let takes_pattern =
                        matches!(predicate, Binary::StringExactlyMatchesPattern | Binary::StringDoesNotExactlyMatchPattern);
                    let left = self.expand_to_text(&left.value).await?;
                    let right = match takes_pattern {
                        true => self.expand_to_pattern(&right.value).await?,
                        false => self.expand_to_text(&right.value).await?,
                    };
                    match (left, right) {
                        (Ok(left), Ok(right)) => self.binary(predicate, &left, &right),
                        (Err(message), _) | (_, Err(message)) => Err(message),
                    }
                }
            };
            Ok(holds)
        })
    }

    fn unary(&self, predicate: &Unary, operand: &str) -> Result<bool, String> {
        let metadata = || self.fs().metadata(&self.path(operand)).ok();
        let is = |test: fn(&Metadata) -> bool| Ok(metadata().is_some_and(|metadata| test(&metadata)));
        match predicate {
            Unary::StringHasZeroLength => Ok(operand.is_empty()),
            Unary::StringHasNonZeroLength => Ok(!operand.is_empty()),
            Unary::FileExists
            | Unary::FileExistsAndIsReadable
            | Unary::FileExistsAndOwnedByEffectiveUserId
            | Unary::FileExistsAndOwnedByEffectiveGroupId => is(|_| true),
            Unary::FileExistsAndIsDir => is(|metadata| metadata.file_type == FileType::Directory),
            Unary::FileExistsAndIsRegularFile => is(|metadata| metadata.file_type == FileType::File),
            Unary::FileExistsAndIsCharSpecialFile => is(|metadata| metadata.file_type == FileType::Null),
            Unary::FileExistsAndIsNotZeroLength => is(|metadata| metadata.size > 0),
            Unary::FileExistsAndIsWritable => is(|metadata| metadata.mode & 0o222 != 0),
            Unary::FileExistsAndIsExecutable => is(|metadata| metadata.mode & 0o111 != 0),
            Unary::FileExistsAndHasStickyBit => is(|metadata| metadata.mode & 0o1000 != 0),
            Unary::FileExistsAndIsSymlink => {
                Ok(self.fs().symlink_metadata(&self.path(operand)).is_ok_and(|metadata| metadata.file_type == FileType::Symlink))
            }
            Unary::FileExistsAndIsBlockSpecialFile
            | Unary::FileExistsAndIsFifo
            | Unary::FileExistsAndIsSocket
            | Unary::FileExistsAndIsSetgid
            | Unary::FileExistsAndIsSetuid => Ok(false),
            Unary::FdIsOpenTerminal => Ok(self.terminal.is_some() && matches!(operand, "0" | "1" | "2")),
            Unary::ShellVariableIsSetAndAssigned => Ok(self.variables.contains_key(operand)),
            other => Err(format!("{other} is not supported by this shell")),
        }
    }

    fn binary(&self, predicate: &Binary, left: &str, right: &str) -> Result<bool, String> {
        let numbers = || Ok::<_, String>((number(left)?, number(right)?));
        let modified = |path: &str| self.fs().metadata(&self.path(path)).ok().map(|metadata| metadata.modified);
        match predicate {
            Binary::StringExactlyMatchesString => Ok(left == right),
            Binary::StringDoesNotExactlyMatchString => Ok(left != right),
            Binary::StringExactlyMatchesPattern => Ok(pattern_regex(right, true).is_some_and(|regex| regex.is_match(left))),
            Binary::StringDoesNotExactlyMatchPattern => Ok(!pattern_regex(right, true).is_some_and(|regex| regex.is_match(left))),
            Binary::StringMatchesRegex => {
                let regex = regex::Regex::new(right).map_err(|_| format!("{right}: not a regular expression"))?;
                Ok(regex.is_match(left))
            }
            Binary::StringContainsSubstring => Ok(left.contains(right)),
            Binary::LeftSortsBeforeRight => Ok(left < right),
            Binary::LeftSortsAfterRight => Ok(left > right),
            Binary::ArithmeticEqualTo => numbers().map(|(left, right)| left == right),
            Binary::ArithmeticNotEqualTo => numbers().map(|(left, right)| left != right),
            Binary::ArithmeticLessThan => numbers().map(|(left, right)| left < right),
            Binary::ArithmeticLessThanOrEqualTo => numbers().map(|(left, right)| left <= right),
            Binary::ArithmeticGreaterThan => numbers().map(|(left, right)| left > right),
            Binary::ArithmeticGreaterThanOrEqualTo => numbers().map(|(left, right)| left >= right),
            Binary::LeftFileIsNewerOrExistsWhenRightDoesNot => Ok(modified(left) > modified(right)),
            Binary::LeftFileIsOlderOrDoesNotExistWhenRightDoes => Ok(modified(left) < modified(right)),
            Binary::FilesReferToSameDeviceAndInodeNumbers => {
                let real = |path: &str| self.fs().canonicalize(&self.path(path)).ok();
                Ok(real(left).is_some() && real(left) == real(right))
            }
        }
    }
}

fn number(text: &str) -> Result<i64, String> {
    text.trim().parse().map_err(|_| format!("{text}: bad number"))
}
