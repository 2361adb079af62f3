//! Resource quantities: `100m`, `1.5Gi`, `2e3`.

use std::cmp::Ordering;

/// A quantity as an exact decimal: `mantissa × 10^exponent`, or `mantissa × 1024^n` folded into the mantissa.
#[derive(Debug, Clone, Copy)]
pub struct Quantity {
    mantissa: i128,
    /// Power of ten, never above zero once parsed from plain digits.
    exponent: i32,
    style: Style,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Style {
    Decimal,
    Binary,
    Exponent,
}

const BINARY: [(&str, u32); 6] = [("Ki", 1), ("Mi", 2), ("Gi", 3), ("Ti", 4), ("Pi", 5), ("Ei", 6)];
const DECIMAL: [(&str, i32); 10] =
    [("n", -9), ("u", -6), ("m", -3), ("", 0), ("k", 3), ("M", 6), ("G", 9), ("T", 12), ("P", 15), ("E", 18)];
/// Kubernetes keeps nine decimal places.
const MAX_DIGITS: usize = 30;

impl Quantity {
    /// Parses a quantity. `None` where it is malformed, or beyond what anyone can mean (30 digits, in its canonical form as well, which
    /// is what is stored and read again).
    pub fn parse(text: &str) -> Option<Self> {
        let digits = |quantity: &Self| quantity.canonical().bytes().filter(u8::is_ascii_digit).count();
        Self::parse_any(text).filter(|quantity| digits(quantity) <= MAX_DIGITS)
    }

    fn parse_any(text: &str) -> Option<Self> {
        let (negative, unsigned) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text.strip_prefix('+').unwrap_or(text)),
        };
        let end = unsigned.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(unsigned.len());
        let (number, suffix) = unsigned.split_at(end);
        let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
        if fraction.contains('.') || (whole.is_empty() && fraction.is_empty()) || whole.len() + fraction.len() > MAX_DIGITS {
            return None;
        }
        let mut mantissa: i128 = format!("0{whole}{fraction}").parse().ok()?;
        if negative {
            mantissa = -mantissa;
        }
        let exponent = -i32::try_from(fraction.len()).ok()?;
        if let Some((_, power)) = BINARY.iter().find(|(name, _)| *name == suffix) {
            return Some(Self { mantissa: mantissa.checked_mul(1024i128.pow(*power))?, exponent, style: Style::Binary });
        }
        if let Some((_, power)) = DECIMAL.iter().find(|(name, _)| *name == suffix) {
            return Some(Self { mantissa, exponent: exponent + power, style: Style::Decimal });
        }
        let power: i32 = suffix.strip_prefix(['e', 'E'])?.parse().ok()?;
        (power.abs() <= 18).then_some(Self { mantissa, exponent: exponent + power, style: Style::Exponent })
    }

    /// Whether it is below zero.
    pub fn is_negative(self) -> bool {
        self.mantissa < 0
    }

    /// The nearest floating-point number.
    pub fn to_f64(self) -> f64 {
        let mantissa = self.mantissa as f64;
        mantissa * 10f64.powi(self.exponent)
    }

    /// Mantissas over the lower of both exponents; `None` where that overflows.
    fn aligned(self, other: Self) -> Option<(i128, i128)> {
        let exponent = self.exponent.min(other.exponent);
        let scale = |quantity: Self| {
            let power = u32::try_from(quantity.exponent - exponent).ok()?;
            quantity.mantissa.checked_mul(10i128.checked_pow(power)?)
        };
        Some((scale(self)?, scale(other)?))
    }

    /// Which is more.
    pub fn compare(self, other: Self) -> Ordering {
        match self.aligned(other) {
            Some((a, b)) => a.cmp(&b),
            None => self.to_f64().total_cmp(&other.to_f64()),
        }
    }

    /// The canonical form: no fraction, the largest suffix that is exact.
    pub fn canonical(self) -> String {
        let (mut mantissa, mut exponent) = (self.mantissa, self.exponent);
        if mantissa == 0 {
            return "0".to_owned();
        }
        while mantissa % 10 == 0 {
            mantissa /= 10;
            exponent += 1;
        }
        if self.style == Style::Binary
            && exponent >= 0
            && let Some(mut whole) = 10i128.checked_pow(exponent.unsigned_abs()).and_then(|power| mantissa.checked_mul(power))
        {
            let mut power = 0;
            while whole % 1024 == 0 && power < 6 {
                whole /= 1024;
                power += 1;
            }
            let suffix = BINARY.iter().find(|(_, p)| *p == power).map_or("", |(name, _)| name);
            return format!("{whole}{suffix}");
        }
        // Down to a multiple of three, and not below a billionth (rounding up, as Kubernetes does).
        while exponent < -9 {
            mantissa = if mantissa > 0 { (mantissa + 9) / 10 } else { (mantissa - 9) / 10 };
            exponent += 1;
        }
        while exponent.rem_euclid(3) != 0 || exponent > 18 {
            let Some(larger) = mantissa.checked_mul(10) else { break };
            mantissa = larger;
            exponent -= 1;
        }
        if self.style == Style::Exponent {
            return if exponent == 0 { mantissa.to_string() } else { format!("{mantissa}e{exponent}") };
        }
        let suffix = DECIMAL.iter().find(|(_, power)| *power == exponent).map_or("", |(name, _)| name);
        format!("{mantissa}{suffix}")
    }
}

/// The canonical form of a quantity; what is none stays as it is.
pub fn canonical(text: &str) -> String {
    Quantity::parse(text).map_or_else(|| text.to_owned(), Quantity::canonical)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn canonical_forms() {
        for (text, expected) in [
            ("0.5", "500m"),
            ("1.5", "1500m"),
            ("1.5Gi", "1536Mi"),
            ("1024Ki", "1Mi"),
            ("1000", "1k"),
            ("1000m", "1"),
            ("100m", "100m"),
            ("12e6", "12e6"),
            ("0", "0"),
            ("-2", "-2"),
            ("1234567", "1234567"),
            ("64Mi", "64Mi"),
            ("1000Mi", "1000Mi"),
        ] {
            assert_eq!(canonical(text), expected, "{text}");
        }
    }

    #[test]
    fn malformed() {
        for text in ["", "Gi", "1GiB", "1.2.3", "--1", "1e", "1e99", "one"] {
            assert!(Quantity::parse(text).is_none(), "{text}");
        }
    }

    #[test]
    fn what_is_stored_can_be_read_again() {
        assert!(Quantity::parse("40000000000000000000004.4000004").is_none());
        for text in ["400000000000000000000.4000004", "1e18", "9999999999999999999999999999", "1000E", "-0.0000000001"] {
            let stored = canonical(text);
            assert_eq!(canonical(&stored), stored, "{text}");
            assert!(Quantity::parse(&stored).is_some(), "{text} becomes {stored}");
        }
    }

    #[test]
    fn order() {
        let compare = |a, b| Quantity::parse(a).unwrap().compare(Quantity::parse(b).unwrap());
        assert_eq!(compare("1Gi", "1G"), Ordering::Greater);
        assert_eq!(compare("1000m", "1"), Ordering::Equal);
        assert_eq!(compare("0.1", "200m"), Ordering::Less);
    }
}
