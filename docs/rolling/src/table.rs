//! Tables as Markdown.

/// A table of `rows` below the names of their columns.
pub(crate) fn markdown(head: &[&str], rows: &[Vec<String>]) -> String {
    let mut table = line(head) + &line(&vec!["---"; head.len()]).replace(' ', "");
    for row in rows {
        table += &line(row);
    }
    table
}

fn line(cells: &[impl AsRef<str>]) -> String {
    let mut line = String::from("|");
    for cell in cells {
        line += &format!(" {} |", cell.as_ref());
    }
    line + "\n"
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    match number / 1000 {
        0 => number.to_string(),
        thousands => format!("{} {:03}", grouped(thousands), number % 1000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_its_head_a_rule_and_its_rows() {
        let rows = [vec!["axum".to_owned(), "12".to_owned()]];
        assert_eq!(
            markdown(&["server", "lost"], &rows),
            "| server | lost |\n|---|---|\n| axum | 12 |\n"
        );
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        let grouped = [0, 12, 123, 1234, 123_456, 1_234_567].map(grouped);
        assert_eq!(grouped, ["0", "12", "123", "1 234", "123 456", "1 234 567"]);
    }
}
