//! Dockerfiles.

use super::facts::Facts;
use super::facts::Image;
use super::source::At;
use super::source::Source;

pub(super) fn read(source: &Source<'_>, facts: &mut Facts) {
    let mut image: Option<Image> = None;
    let mut entry = None;
    let mut arguments = None;
    for (number, line) in instructions(source) {
        let (name, rest) = line.split_once(char::is_whitespace).unwrap_or((&line, ""));
        let rest = rest.trim();
        match name.to_ascii_uppercase().as_str() {
            "FROM" => {
                let words = rest.split_whitespace().find(|word| !word.starts_with("--"));
                image = Some(Image {
                    base: source.at(number, words.unwrap_or_default().to_owned()),
                    stop_signal: None,
                    starts: None,
                });
                (entry, arguments) = (None, None);
            }
            "STOPSIGNAL" => {
                if let Some(image) = &mut image {
                    image.stop_signal = Some(source.at(number, rest.to_owned()));
                }
            }
            "ENTRYPOINT" => entry = Some(source.at(number, rest.to_owned())),
            "CMD" => arguments = Some(source.at(number, rest.to_owned())),
            _ => {}
        }
    }
    let Some(mut image) = image else { return };
    image.starts = entry.or(arguments).map(as_started);
    facts.stop_signals.extend(image.stop_signal.clone());
    facts.commands.extend(image.starts.clone());
    facts.images.push(image);
}

/// The command as the container starts it. The shell form puts a shell in front.
fn as_started(command: At<String>) -> At<String> {
    command.map(|text| {
        match text
            .strip_prefix('[')
            .and_then(|text| text.strip_suffix(']'))
        {
            Some(words) => words
                .split(',')
                .map(|word| word.trim().trim_matches('"'))
                .collect::<Vec<_>>()
                .join(" "),
            None => format!("sh -c {text}"),
        }
    })
}

/// The instructions with their continued lines joined.
fn instructions(source: &Source<'_>) -> Vec<(usize, String)> {
    let mut instructions: Vec<(usize, String)> = Vec::new();
    let mut continues = false;
    for (number, line) in source.lines() {
        let text = line.trim_end_matches('\\').trim();
        match instructions.last_mut().filter(|_| continues) {
            Some((_, instruction)) => {
                instruction.push(' ');
                instruction.push_str(text);
            }
            None => instructions.push((number, text.to_owned())),
        }
        continues = line.ends_with('\\');
    }
    instructions
}
