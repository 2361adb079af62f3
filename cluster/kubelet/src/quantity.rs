//! Kubernetes quantities (`250m`, `128Mi`), as far as the downward API and volume limits need them.

/// A quantity in thousandths, or `None` if it is malformed or too large.
pub(crate) fn milli(text: &str) -> Option<i128> {
    let digits = text.find(|c: char| !c.is_ascii_digit() && !matches!(c, '.' | '+' | '-')).unwrap_or(text.len());
    let (number, suffix) = text.split_at(digits);
    let scale: i128 = match suffix {
        "n" | "u" => return milli(number).map(|value| (value + 999) / if suffix == "n" { 1_000_000_000 } else { 1_000_000 }),
        "m" => 1,
        "" => 1000,
        "k" => 1000 * 1000,
        "M" => 1000 * 1000_i128.pow(2),
        "G" => 1000 * 1000_i128.pow(3),
        "T" => 1000 * 1000_i128.pow(4),
        "P" => 1000 * 1000_i128.pow(5),
        "E" => 1000 * 1000_i128.pow(6),
        "Ki" => 1000 * 1024,
        "Mi" => 1000 * 1024_i128.pow(2),
        "Gi" => 1000 * 1024_i128.pow(3),
        "Ti" => 1000 * 1024_i128.pow(4),
        "Pi" => 1000 * 1024_i128.pow(5),
        "Ei" => 1000 * 1024_i128.pow(6),
        exponent => {
            let power: u32 = exponent.strip_prefix(['e', 'E'])?.parse().ok().filter(|power| *power <= 18)?;
            1000 * 10_i128.pow(power)
        }
    };
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.len() + fraction.len() > 18 || fraction.contains(['+', '-']) {
        return None;
    }
    let negative = whole.starts_with('-');
    let digits: i128 = format!("{}{fraction}", whole.trim_start_matches(['+', '-'])).parse().ok()?;
    let value = (digits * scale).div_euclid(10_i128.pow(u32::try_from(fraction.len()).ok()?));
    Some(if negative { -value } else { value })
}

/// How often `divisor` goes into `value`, rounded up, as the downward API writes it.
pub(crate) fn divide(value: i128, divisor: i128) -> i128 {
    if divisor <= 0 { 0 } else { (value + divisor - 1).div_euclid(divisor) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_and_their_divisors() {
        assert_eq!(milli("250m"), Some(250));
        assert_eq!(milli("1.5"), Some(1500));
        assert_eq!(milli("128Mi"), Some(128 * 1024 * 1024 * 1000));
        assert_eq!(milli("1e3"), Some(1_000_000));
        assert_eq!(milli("much"), None);
        assert_eq!(milli("99999999999999999999"), None);
        assert_eq!(divide(250, 1000), 1, "a quarter of a core is one core");
        assert_eq!(divide(128 * 1024 * 1024 * 1000, 1024 * 1024 * 1000), 128);
    }
}
