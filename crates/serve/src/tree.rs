//! The tree as clients get it (`docs/protocols/workspace.md` §5).

use std::ops::Range;
use std::sync::Arc;

use legwork_socketio::Payload;
use legwork_workspace::{Root, Tree, TreeKind, TreeLimits};
use serde_json::value::RawValue;

use crate::paths::{Names, Trouble};

const MAX_NODES: usize = 20_000;
const MAX_DEPTH: usize = 64;

/// The payload of `file:refresh` for a folder. Blocks.
pub(crate) fn refresh(
    root: &Root,
    names: &Names,
    exclude: &[String],
    relative: &str,
    given: &str,
) -> Result<Payload, Trouble> {
    let limits = TreeLimits { exclude: exclude.to_vec(), nodes: MAX_NODES, depth: MAX_DEPTH };
    let tree = root.tree(relative, &limits).map_err(|e| Trouble::of(&e, given))?;
    let path = names.absolute(relative);
    let mut out = String::with_capacity(64 + tree.nodes.len() * 96);
    out.push_str("{\"tree\":");
    let mut at = if path == "/" { String::new() } else { path.clone() };
    write_nodes(&tree, 0..tree.top, &mut at, &mut out);
    out.push_str(",\"path\":");
    write_text(&path, &mut out);
    if tree.truncated {
        out.push_str(",\"truncated\":true");
    }
    out.push('}');
    match RawValue::from_string(out) {
        Ok(raw) => Ok(Arc::from(raw)),
        Err(error) => Err(Trouble::new("io_error", error.to_string())),
    }
}

fn write_nodes(tree: &Tree, range: Range<usize>, at: &mut String, out: &mut String) {
    out.push('[');
    for (index, node) in tree.nodes[range].iter().enumerate() {
        if index > 0 {
            out.push(',');
        }
        let name = node.name.to_string_lossy();
        let len = at.len();
        at.push('/');
        at.push_str(&name);
        out.push_str("{\"name\":");
        write_text(&name, out);
        out.push_str(if node.kind == TreeKind::File {
            ",\"type\":\"file\""
        } else {
            ",\"type\":\"directory\""
        });
        out.push_str(",\"path\":");
        write_text(at, out);
        if node.kind == TreeKind::Directory {
            out.push_str(",\"children\":");
            let children = if node.children.start == usize::MAX { 0..0 } else { node.children.clone() };
            write_nodes(tree, children, at, out);
        }
        out.push('}');
        at.truncate(len);
    }
    out.push(']');
}

fn write_text(text: &str, out: &mut String) {
    let plain = text.bytes().all(|b| b >= 0x20 && b != b'"' && b != b'\\');
    if plain {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}
