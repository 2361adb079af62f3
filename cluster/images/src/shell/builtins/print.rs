//! `echo`, `printf` and their backslash escapes.

/// `echo`, with `-n`, `-e` and `-E`.
pub(super) fn echo(arguments: &[String]) -> Vec<u8> {
    let (mut line_feed, mut escapes, mut words) = (true, false, arguments);
    while let Some((flag, rest)) = words.split_first() {
        let letters = flag.strip_prefix('-').filter(|letters| !letters.is_empty() && letters.chars().all(|c| "neE".contains(c)));
        let Some(letters) = letters else { break };
        line_feed &= !letters.contains('n');
        escapes = letters.contains('e') || (escapes && !letters.contains('E'));
        words = rest;
    }
    let text = words.join(" ");
    let mut output = match escapes {
        true => {
            let decoded = decode_escapes(&text);
            line_feed &= !decoded.stopped;
            decoded.bytes
        }
        false => text.into_bytes(),
    };
    if line_feed {
        output.push(b'\n');
    }
    output
}

/// A text whose backslash escapes are decoded.
pub(crate) struct Decoded {
    pub(crate) bytes: Vec<u8>,
    /// `\c` was there: nothing more is to be written.
    pub(crate) stopped: bool,
}

impl Decoded {
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.bytes).into_owned()
    }
}

/// Decodes `\n`, `\t`, `\xHH`, `\0NNN` and the like.
pub(crate) fn decode_escapes(text: &str) -> Decoded {
    let (mut bytes, mut rest) = (Vec::with_capacity(text.len()), text);
    while let Some(at) = rest.find('\\') {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        rest = &rest[at + 1..];
        let Some(letter) = rest.chars().next() else {
            bytes.push(b'\\');
            break;
        };
        rest = &rest[letter.len_utf8()..];
        let mut take = |most: usize, radix: u32| {
            let end =
                rest.char_indices().take(most).take_while(|(_, c)| c.is_digit(radix)).map(|(at, _)| at + 1).last().unwrap_or(0);
            let digits = &rest[..end];
            rest = &rest[end..];
            u32::from_str_radix(digits, radix).ok()
        };
        match letter {
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            'r' => bytes.push(b'\r'),
            'a' => bytes.push(7),
            'b' => bytes.push(8),
            'f' => bytes.push(12),
            'v' => bytes.push(11),
            'e' => bytes.push(27),
            '\\' | '\'' | '"' => bytes.push(letter as u8),
            'c' => return Decoded { bytes, stopped: true },
            '0' => bytes.push((take(3, 8).unwrap_or(0) & 0xff) as u8),
            'x' => bytes.extend(take(2, 16).map(|byte| (byte & 0xff) as u8)),
            'u' => bytes.extend(take(4, 16).and_then(char::from_u32).unwrap_or('\u{fffd}').to_string().bytes()),
            other => bytes.extend(format!("\\{other}").bytes()),
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    Decoded { bytes, stopped: false }
}

/// The longest output of one `printf`.
const MAX_OUTPUT: usize = 16 << 20;

/// `printf FORMAT [ARGUMENT…]`; the format is used again while there are arguments.
pub(super) fn printf(arguments: &[String]) -> Result<Vec<u8>, String> {
    let (format, mut rest) = arguments.split_first().ok_or("usage: printf FORMAT [ARGUMENT]...")?;
    let mut output = Vec::new();
    loop {
        let before = rest.len();
        let stopped = printf_once(format, &mut rest, &mut output)?;
        if output.len() > MAX_OUTPUT {
            return Err(format!("the output is over {} MiB", MAX_OUTPUT >> 20));
        }
        if stopped || rest.is_empty() || rest.len() == before {
            return Ok(output);
        }
    }
}

fn printf_once(format: &str, arguments: &mut &[String], output: &mut Vec<u8>) -> Result<bool, String> {
    /// Columns and digits that a conversion may ask for.
    const MAX_WIDTH: usize = 4096;
    let mut next = || {
        let (first, rest) = arguments.split_first()?;
        *arguments = rest;
        Some(first.as_str())
    };
    let mut rest = format;
    while let Some(at) = rest.find('%')
        && output.len() <= MAX_OUTPUT
    {
        let decoded = decode_escapes(&rest[..at]);
        output.extend(decoded.bytes);
        if decoded.stopped {
            return Ok(true);
        }
        rest = &rest[at + 1..];
        let spec_end = rest.find(|c: char| !"-+ #0123456789.*".contains(c)).ok_or("%: invalid directive")?;
        let (flags, after) = rest.split_at(spec_end);
        let conversion = after.chars().next().unwrap_or('%');
        rest = &after[conversion.len_utf8()..];
        let mut number = |text: &str| match text {
            "*" => next().and_then(|value| value.parse().ok()).unwrap_or(0),
            digits => digits.parse::<usize>().unwrap_or(0),
        };
        let bare = flags.trim_start_matches(['-', '+', ' ', '#', '0']);
        let (width, precision) = match bare.split_once('.') {
            Some((width, precision)) => (number(width), Some(number(precision).min(MAX_WIDTH))),
            None => (number(bare), None),
        };
        let prefix = &flags[..flags.len() - bare.len()];
        let integer = |text: Option<&str>| -> Result<i64, String> {
            let text = text.unwrap_or("0").trim();
            let parsed = match (text.strip_prefix("0x"), text.strip_prefix(['\'', '"'])) {
                (Some(hex), _) => i64::from_str_radix(hex, 16).ok(),
                (_, Some(quoted)) => quoted.chars().next().map(|c| i64::from(u32::from(c))),
                _ => text.parse().ok(),
            };
            parsed.ok_or_else(|| format!("{text}: invalid number"))
        };
        let signed = |value: String, negative: bool| match prefix.contains('+') && !negative {
            true => format!("+{value}"),
            false => value,
        };
        let text = match conversion {
            '%' => "%".to_owned(),
            's' => {
                let text = next().unwrap_or_default();
                precision.map_or_else(|| text.to_owned(), |most| text.chars().take(most).collect())
            }
            'b' => decode_escapes(next().unwrap_or_default()).text(),
            'c' => next().and_then(|text| text.chars().next()).map(String::from).unwrap_or_default(),
            'd' | 'i' => integer(next()).map(|value| signed(value.to_string(), value < 0))?,
            'u' => integer(next())?.cast_unsigned().to_string(),
            'x' => format!("{:x}", integer(next())?),
            'X' => format!("{:X}", integer(next())?),
            'o' => format!("{:o}", integer(next())?),
            'f' | 'F' | 'g' | 'e' => {
                let text = next().unwrap_or("0");
                let value: f64 = text.trim().parse().map_err(|_| format!("{text}: invalid number"))?;
                match conversion {
                    'e' => format!("{value:.*e}", precision.unwrap_or(6)),
                    'g' => value.to_string(),
                    _ => signed(format!("{value:.*}", precision.unwrap_or(6)), value < 0.0),
                }
            }
            other => return Err(format!("%{other}: invalid directive")),
        };
        let missing = " ".repeat(width.min(MAX_WIDTH).saturating_sub(text.chars().count()));
        let padded = if prefix.contains('-') {
            text + &missing
        } else if prefix.contains('0') && conversion != 's' {
            let (sign, digits) = text.split_at(usize::from(text.starts_with(['-', '+'])));
            format!("{sign}{}{digits}", "0".repeat(missing.len()))
        } else {
            missing + &text
        };
        output.extend(padded.bytes());
    }
    let decoded = decode_escapes(rest);
    output.extend(decoded.bytes);
    Ok(decoded.stopped)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(builtin: fn(&[String]) -> Vec<u8>, arguments: &[&str]) -> String {
        String::from_utf8(builtin(&arguments.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())).unwrap()
    }

    #[test]
    fn echo_knows_its_flags() {
        assert_eq!(run(echo, &["-n", "a", "b"]), "a b");
        assert_eq!(run(echo, &["-e", r"a\tb\x41\0101\c", "lost"]), "a\tbAA");
        assert_eq!(run(echo, &["-x", r"\t"]), "-x \\t\n");
    }

    #[test]
    fn printf_formats() {
        let printf = |arguments: &[String]| printf(arguments).unwrap();
        assert_eq!(run(printf, &[r"%-5s|%5s|%03d|%x\n", "a", "b", "7", "255"]), "a    |    b|007|ff\n");
        assert_eq!(run(printf, &["%s,", "a", "b", "c"]), "a,b,c,");
        assert_eq!(run(printf, &["%.2f %%", "3.14159"]), "3.14 %");
        assert_eq!(run(printf, &["%s=%d "]), "=0 ");
        let wide = "%4096d".repeat(1 << 15);
        assert_eq!(super::printf(&[wide]), Err("the output is over 16 MiB".to_owned()));
    }
}
