//! Formats for users: sizes, durations, counts, and text cut to a width.

/// A size, for example `12.3G`.
pub fn size_text(bytes: u64) -> String {
    let units = ["B", "K", "M", "G", "T", "P"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    match unit {
        0 => format!("{bytes}B"),
        _ => format!("{value:.1}{}", units[unit]),
    }
}

/// A count with its noun, for example `1 key`, `2 keys`.
pub fn counted(count: u64, noun: &str) -> String {
    match count {
        1 => format!("1 {noun}"),
        _ if noun.ends_with('y') && !noun.ends_with("ey") => format!("{count} {}ies", &noun[..noun.len() - 1]),
        _ => format!("{count} {noun}s"),
    }
}

/// A duration, for example `0.07 s`, `12.3 s`, `3 min 20 s`, `2 h 5 min`.
pub fn seconds_text(seconds: f64) -> String {
    let whole = seconds as u64;
    match seconds {
        ..9.995 => format!("{:.2} s", seconds.max(0.0)),
        ..60.0 => format!("{seconds:.1} s"),
        ..3600.0 => format!("{} min {} s", whole / 60, whole % 60),
        _ => format!("{} h {} min", whole / 3600, whole / 60 % 60),
    }
}

/// The first `width` characters of `text`. If more follow, the last one is `…`.
pub fn cut(text: &str, width: usize) -> String {
    match text.char_indices().nth(width) {
        None => text.to_owned(),
        Some(_) => text.chars().take(width.saturating_sub(1)).chain((width > 0).then_some('…')).collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_grow_their_units() {
        let cases = [
            (0.0, "0.00 s"),
            (9.996, "10.0 s"),
            (59.99, "60.0 s"),
            (200.4, "3 min 20 s"),
            (3599.9, "59 min 59 s"),
            (7501.0, "2 h 5 min"),
        ];
        for (seconds, text) in cases {
            assert_eq!(seconds_text(seconds), text);
        }
    }

    #[test]
    fn more_than_one_is_plural() {
        assert_eq!(counted(1, "key"), "1 key");
        assert_eq!(counted(0, "key"), "0 keys");
        assert_eq!(counted(2, "directory"), "2 directories");
    }

    #[test]
    fn a_cut_text_has_the_width() {
        assert_eq!(cut("abc", 3), "abc");
        assert_eq!(cut("äbcd", 3), "äb…");
        assert_eq!(cut("abc", 1), "…");
        assert_eq!(cut("abc", 0), "");
    }
}
