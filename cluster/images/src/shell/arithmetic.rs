//! `$((…))`: evaluating arithmetic expressions.

use brush_parser::ast::{
    ArithmeticExpr as Expr, ArithmeticTarget, BinaryOperator as Binary, UnaryAssignmentOperator as Step, UnaryOperator as Unary,
};

use super::parse;
use super::state::Shell;

/// How often a variable's value may name another variable.
const MAX_REFERENCES: usize = 16;

impl Shell {
    /// Evaluates; overflow wraps, as in other shells.
    pub(super) fn evaluate(&mut self, expression: &Expr) -> Result<i64, String> {
        self.evaluate_at(expression, 0)
    }

    fn evaluate_at(&mut self, expression: &Expr, references: usize) -> Result<i64, String> {
        match expression {
            Expr::Literal(value) => Ok(*value),
            Expr::Reference(target) => self.reference(target, references),
            Expr::UnaryOp(operator, operand) => {
                let value = self.evaluate_at(operand, references)?;
                Ok(match operator {
                    Unary::UnaryPlus => value,
                    Unary::UnaryMinus => value.wrapping_neg(),
                    Unary::BitwiseNot => !value,
                    Unary::LogicalNot => i64::from(value == 0),
                })
            }
            Expr::BinaryOp(operator @ (Binary::LogicalAnd | Binary::LogicalOr), left, right) => {
                let left = self.evaluate_at(left, references)? != 0;
                match (operator, left) {
                    (Binary::LogicalAnd, false) => Ok(0),
                    (Binary::LogicalOr, true) => Ok(1),
                    _ => Ok(i64::from(self.evaluate_at(right, references)? != 0)),
                }
            }
            Expr::BinaryOp(operator, left, right) => {
                let left = self.evaluate_at(left, references)?;
                let right = self.evaluate_at(right, references)?;
                apply(*operator, left, right)
            }
            Expr::Conditional(condition, then, otherwise) => {
                let branch = if self.evaluate_at(condition, references)? != 0 { then } else { otherwise };
                self.evaluate_at(branch, references)
            }
            Expr::Assignment(target, value) => {
                let value = self.evaluate_at(value, references)?;
                self.assign(target, value)
            }
            Expr::BinaryAssignment(operator, target, value) => {
                let right = self.evaluate_at(value, references)?;
                let left = self.reference(target, references)?;
                self.assign(target, apply(*operator, left, right)?)
            }
            Expr::UnaryAssignment(step, target) => {
                let before = self.reference(target, references)?;
                let after = match step {
                    Step::PrefixIncrement | Step::PostfixIncrement => before.wrapping_add(1),
                    Step::PrefixDecrement | Step::PostfixDecrement => before.wrapping_sub(1),
                };
                self.assign(target, after)?;
                let prefix = matches!(step, Step::PrefixIncrement | Step::PrefixDecrement);
                Ok(if prefix { after } else { before })
            }
        }
    }

    fn reference(&mut self, target: &ArithmeticTarget, references: usize) -> Result<i64, String> {
        let value = self.get(name(target)?).unwrap_or_default().trim().to_owned();
        if value.is_empty() {
            return Ok(0);
        }
        if let Ok(number) = value.parse() {
            return Ok(number);
        }
        if references == MAX_REFERENCES {
            return Err(format!("{}: expression recursion level exceeded", name(target)?));
        }
        let expression = parse::arithmetic(&value)?;
        self.evaluate_at(&expression, references + 1)
    }

    fn assign(&mut self, target: &ArithmeticTarget, value: i64) -> Result<i64, String> {
        self.set(name(target)?, value.to_string())?;
        Ok(value)
    }
}

fn name(target: &ArithmeticTarget) -> Result<&str, String> {
    match target {
        ArithmeticTarget::Variable(name) => Ok(name),
        ArithmeticTarget::ArrayElement(..) => Err("arrays are not supported by this shell".to_owned()),
    }
}

fn apply(operator: Binary, left: i64, right: i64) -> Result<i64, String> {
    // Linux shells leave the shift's size to the processor, which takes it modulo 64.
    let shift = u32::try_from(right & 63).unwrap_or(0);
    Ok(match operator {
        Binary::Power => left.wrapping_pow(u32::try_from(right).map_err(|_| "exponent less than 0 or too large")?),
        Binary::Multiply => left.wrapping_mul(right),
        Binary::Divide | Binary::Modulo if right == 0 => return Err("divide by zero".to_owned()),
        Binary::Divide => left.wrapping_div(right),
        Binary::Modulo => left.wrapping_rem(right),
        Binary::Comma => right,
        Binary::Add => left.wrapping_add(right),
        Binary::Subtract => left.wrapping_sub(right),
        Binary::ShiftLeft => left.wrapping_shl(shift),
        Binary::ShiftRight => left.wrapping_shr(shift),
        Binary::LessThan => i64::from(left < right),
        Binary::LessThanOrEqualTo => i64::from(left <= right),
        Binary::GreaterThan => i64::from(left > right),
        Binary::GreaterThanOrEqualTo => i64::from(left >= right),
        Binary::Equals => i64::from(left == right),
        Binary::NotEquals => i64::from(left != right),
        Binary::BitwiseAnd => left & right,
        Binary::BitwiseXor => left ^ right,
        Binary::BitwiseOr => left | right,
        Binary::LogicalAnd => i64::from(left != 0 && right != 0),
        Binary::LogicalOr => i64::from(left != 0 || right != 0),
    })
}
