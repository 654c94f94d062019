//! The rows of a job that runs more than once.

use legwork_yaml::{Node, Value};

use crate::expression::{Failed, Lookup, Malformed, Template};
use crate::value::Item;

/// Most rows of a matrix.
pub const MAX_ROWS: usize = 256;

/// What a job's rows are made of.
#[derive(Debug, Clone, PartialEq)]
pub struct Matrix {
    /// As it stands in the file.
    node: Node,
    /// Its line.
    pub line: u64,
    /// Whether the first row that fails ends the others. They do where this says nothing.
    pub fail_fast: Option<Template>,
    /// How many rows run side by side.
    pub max_parallel: Option<Template>,
}

/// Why there are no rows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[allow(missing_docs, reason = "the messages say it")]
pub enum NoMatrix {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("{0}")]
    Failed(#[from] Failed),
    #[error("a matrix may have {MAX_ROWS} rows, this one has more")]
    TooMany,
    #[error("a matrix is a dictionary of lists, with include and exclude as lists of dictionaries")]
    Shape,
    #[error("{0} has no value: a list is needed")]
    Empty(String),
}

type Row = Vec<(String, Item)>;

impl Matrix {
    pub(crate) fn new(node: &Node, line: u64) -> Self {
        Self { node: node.clone(), line, fail_fast: None, max_parallel: None }
    }

    /// Whether its rows are known before anything runs.
    pub fn is_fixed(&self) -> bool {
        is_fixed(&self.node)
    }

    /// Its rows, in their order.
    pub fn rows(&self, lookup: &dyn Lookup) -> Result<Vec<Item>, NoMatrix> {
        let Item::Map(entries) = fill_node(&self.node, lookup)? else { return Err(NoMatrix::Shape) };
        let (mut axes, mut include, mut exclude) = (Vec::new(), Vec::new(), Vec::new());
        for (name, item) in entries {
            match (name.as_str(), item) {
                ("include", item) => include = rows_of(item)?,
                ("exclude", item) => exclude = rows_of(item)?,
                (_, Item::List(list)) if list.is_empty() => return Err(NoMatrix::Empty(name)),
                (_, Item::List(list)) => axes.push((name, list)),
                _ => return Err(NoMatrix::Shape),
            }
        }
        let mut count = 1usize;
        for (_, list) in &axes {
            // What is excluded was counted as well: the product itself has to be bounded.
            count = count.saturating_mul(list.len());
            if count > MAX_ROWS * 16 {
                return Err(NoMatrix::TooMany);
            }
        }
        let mut rows: Vec<Row> = if axes.is_empty() { Vec::new() } else { vec![Vec::new()] };
        for (name, list) in &axes {
            rows = rows
                .iter()
                .flat_map(|row| {
                    list.iter().map(|item| {
                        row.iter().cloned().chain([(name.clone(), item.clone())]).collect::<Row>()
                    })
                })
                .collect();
        }
        rows.retain(|row| !exclude.iter().any(|out| matches(row, out)));
        add(&mut rows, include, &axes);
        if rows.len() > MAX_ROWS {
            return Err(NoMatrix::TooMany);
        }
        Ok(rows.into_iter().map(Item::Map).collect())
    }
}

/// Rows that are added to those that they fit, without changing what those had; else they stand alone.
fn add(rows: &mut Vec<Row>, include: Vec<Row>, axes: &[(String, Vec<Item>)]) {
    let own = rows.len();
    for more in include {
        let mut has_place = false;
        let is_axis = |name: &String| axes.iter().any(|(axis, _)| axis == name);
        for row in rows.iter_mut().take(own) {
            let fits = more
                .iter()
                .filter(|(name, _)| is_axis(name))
                .all(|(name, item)| row.iter().any(|(known, value)| known == name && same(value, item)));
            if fits {
                has_place = true;
                for (name, item) in more.iter().filter(|(name, _)| !is_axis(name)) {
                    row.retain(|(known, _)| known != name);
                    row.push((name.clone(), item.clone()));
                }
            }
        }
        if !has_place {
            rows.push(more);
        }
    }
}

fn rows_of(item: Item) -> Result<Vec<Row>, NoMatrix> {
    let list = match item {
        Item::Null => return Ok(Vec::new()),
        Item::List(list) => list,
        _ => return Err(NoMatrix::Shape),
    };
    if list.len() > MAX_ROWS * 16 {
        return Err(NoMatrix::TooMany);
    }
    list.into_iter()
        .map(|item| match item {
            Item::Map(row) => Ok(row),
            _ => Err(NoMatrix::Shape),
        })
        .collect()
}

fn matches(row: &Row, out: &Row) -> bool {
    out.iter().all(|(name, item)| row.iter().any(|(known, value)| known == name && same(value, item)))
}

/// Whether two values are one: maps by what they hold.
fn same(a: &Item, b: &Item) -> bool {
    match (a, b) {
        (Item::Map(a), Item::Map(b)) => matches(a, b),
        (Item::List(a), Item::List(b)) => a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b)),
        (a, b) => a.equals(b),
    }
}

fn is_fixed(node: &Node) -> bool {
    match &node.value {
        Value::Text(text) => !text.contains("${{"),
        Value::List(list) => list.iter().all(is_fixed),
        Value::Map(entries) => entries.iter().all(|entry| is_fixed(&entry.node)),
        _ => true,
    }
}

/// A value of a file, with all its expressions filled in.
pub fn fill_node(node: &Node, lookup: &dyn Lookup) -> Result<Item, NoMatrix> {
    Ok(match &node.value {
        Value::Text(text) => Template::parse(text)?.value(lookup)?,
        Value::List(list) => {
            Item::List(list.iter().map(|node| fill_node(node, lookup)).collect::<Result<_, _>>()?)
        }
        Value::Map(entries) => {
            let entry = |e: &legwork_yaml::Entry| Ok((e.key.clone(), fill_node(&e.node, lookup)?));
            Item::Map(entries.iter().map(entry).collect::<Result<_, NoMatrix>>()?)
        }
        _ => Item::of_node(node),
    })
}

/// What is wrong with the expressions of a value, by line.
pub(crate) fn check_node(node: &Node, line: u64, found: &mut Vec<(u64, Malformed)>) {
    let line = if node.line == 0 { line } else { node.line };
    match &node.value {
        Value::Text(text) => found.extend(Template::parse(text).err().map(|error| (line, error))),
        Value::List(list) => list.iter().for_each(|node| check_node(node, line, found)),
        Value::Map(entries) => entries.iter().for_each(|e| check_node(&e.node, e.line, found)),
        _ => {}
    }
}

/// For what asks nothing.
pub(crate) struct Nothing;

impl Lookup for Nothing {
    fn status(&self) -> crate::Status {
        crate::Status { is_good: true, has_failed: false, is_cancelled: false }
    }

    fn context(&self, _: &str) -> Item {
        Item::Null
    }

    fn hash_files(&self, _: &[String]) -> Result<String, String> {
        Ok(String::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rows(text: &str) -> Result<Vec<String>, String> {
        let node = legwork_yaml::parse(text).expect("yaml");
        let rows = Matrix::new(&node, 1).rows(&Nothing).map_err(|e| e.to_string())?;
        let word = |row: &Item| match row {
            Item::Map(row) => {
                row.iter().map(|(k, v)| format!("{k}={}", v.text())).collect::<Vec<_>>().join(" ")
            }
            _ => String::new(),
        };
        Ok(rows.iter().map(word).collect())
    }

    #[test]
    fn rows_are_made_as_github_makes_them() {
        for (text, want) in [
            ("{a: [1, 2], b: [x, y]}", &["a=1 b=x", "a=1 b=y", "a=2 b=x", "a=2 b=y"][..]),
            ("{a: [1, 2], b: [x, y], exclude: [{a: 1, b: y}, {b: x}]}", &["a=2 b=y"]),
            ("{include: [{a: 1}, {b: 2}]}", &["a=1", "b=2"]),
            ("{a: [1], include: [{a: 1, c: z}, {a: 3}]}", &["a=1 c=z", "a=3"]),
            // The documented example of include.
            (
                "{fruit: [apple, pear], animal: [cat, dog], include: [{color: green}, {color: pink, animal: cat}, {fruit: apple, shape: circle}, {fruit: banana}, {fruit: banana, animal: cat}]}",
                &[
                    "fruit=apple animal=cat color=pink shape=circle",
                    "fruit=apple animal=dog color=green shape=circle",
                    "fruit=pear animal=cat color=pink",
                    "fruit=pear animal=dog color=green",
                    "fruit=banana",
                    "fruit=banana animal=cat",
                ],
            ),
            ("{v: \"${{ fromJSON('[1, 2]') }}\"}", &["v=1", "v=2"]),
            ("{os: [{n: a}, {n: b}], exclude: [{os: {n: a}}]}", &["os=Object"]),
        ] {
            assert_eq!(rows(text).expect(text), want, "{text}");
        }
        let many = |n: usize| (0..n).map(|i| i.to_string()).collect::<Vec<_>>().join(", ");
        assert_eq!(rows(&format!("{{a: [{}]}}", many(256))).map(|r| r.len()), Ok(256));
        for (text, want) in [
            (format!("{{a: [{}]}}", many(257)), "may have 256 rows"),
            (format!("{{a: [{0}], b: [{0}]}}", many(317)), "may have 256 rows"),
            ("{a: 1}".into(), "dictionary of lists"),
            ("{a: []}".into(), "a has no value"),
            ("{include: [1]}".into(), "dictionary of lists"),
            ("{a: [\"${{ nope }}\"]}".into(), "no context 'nope'"),
        ] {
            assert!(rows(&text).is_err_and(|error| error.contains(want)), "{text}");
        }
    }
}
