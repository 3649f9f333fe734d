//! YAML and JSON as nodes that know their lines.

use saphyr_parser::Event;
use saphyr_parser::Parser;

use super::finding::Finding;
use super::source::Source;

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) line: usize,
    value: Value,
}

#[derive(Clone, Debug)]
enum Value {
    Scalar(String),
    List(Vec<Node>),
    /// In the order of the file. The line of a value that is a scalar is the line of its key.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value under a path of keys.
    pub(super) fn get(&self, path: &[&str]) -> Option<&Node> {
        let Some((key, rest)) = path.split_first() else {
            return Some(self);
        };
        let Value::Map(entries) = &self.value else {
            return None;
        };
        let (_, node) = entries.iter().find(|(name, _)| name == key)?;
        node.get(rest)
    }

    pub(super) fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Scalar(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn text_at(&self, path: &[&str]) -> Option<&str> {
        self.get(path)?.text()
    }

    /// The elements of a list. Anything else has none.
    pub(super) fn list(&self) -> &[Node] {
        match &self.value {
            Value::List(nodes) => nodes,
            _ => &[],
        }
    }

    pub(super) fn list_at(&self, path: &[&str]) -> &[Node] {
        self.get(path).map_or(&[], Node::list)
    }

    /// The entries of a map. Anything else has none.
    pub(super) fn map(&self) -> &[(String, Node)] {
        match &self.value {
            Value::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The words of a scalar or of a list of scalars.
    pub(super) fn words(&self) -> Vec<String> {
        match &self.value {
            Value::Scalar(text) => vec![text.clone()],
            Value::List(nodes) => nodes
                .iter()
                .filter_map(|node| node.text().map(str::to_owned))
                .collect(),
            Value::Map(_) => Vec::new(),
        }
    }
}

/// Parses all documents of a file.
pub(super) fn documents(source: &Source<'_>) -> Result<Vec<Node>, Finding> {
    let mut parser = Parser::new_from_str(source.text());
    let mut documents = Vec::new();
    let mut builder = Builder::default();
    loop {
        let (event, span) = match parser.next_event() {
            None => break,
            Some(Ok(next)) => next,
            Some(Err(error)) => {
                let line = error.marker().line();
                let found = format!("this is not valid YAML: {}", error.info());
                return Err(source.refused(line, &found, "mend the syntax"));
            }
        };
        let line = span.start.line();
        match event {
            Event::DocumentEnd => documents.extend(builder.finish()),
            Event::Scalar(text, ..) => builder.value(Node {
                line,
                value: Value::Scalar(text.into_owned()),
            }),
            // An alias repeats what is checked where its anchor stands.
            Event::Alias(_) => builder.value(Node {
                line,
                value: Value::Scalar(String::new()),
            }),
            Event::SequenceStart(..) => builder.open(line, Value::List(Vec::new())),
            Event::MappingStart(..) => builder.open(line, Value::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => builder.close(),
            Event::StreamEnd => break,
            _ => {}
        }
    }
    Ok(documents)
}

/// Makes a tree out of events.
#[derive(Default)]
struct Builder {
    open: Vec<Frame>,
    root: Option<Node>,
}

struct Frame {
    node: Node,
    /// The key that waits for its value, and its line.
    key: Option<(String, usize)>,
}

impl Builder {
    fn open(&mut self, line: usize, value: Value) {
        self.open.push(Frame {
            node: Node { line, value },
            key: None,
        });
    }

    fn close(&mut self) {
        if let Some(frame) = self.open.pop() {
            self.value(frame.node);
        }
    }

    fn value(&mut self, mut node: Node) {
        let Some(frame) = self.open.last_mut() else {
            self.root = Some(node);
            return;
        };
        match &mut frame.node.value {
            Value::List(nodes) => nodes.push(node),
            Value::Map(entries) => match frame.key.take() {
                None => frame.key = Some((node.text().unwrap_or_default().to_owned(), node.line)),
                Some((key, line)) => {
                    node.line = line;
                    entries.push((key, node));
                }
            },
            Value::Scalar(_) => unreachable!("a scalar is never open"),
        }
    }

    fn finish(&mut self) -> Option<Node> {
        self.open.clear();
        self.root.take()
    }
}
