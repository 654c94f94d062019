//! Lists that come in pages.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A page of a list.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "{T}Page")]
pub struct Page<T, C> {
    /// What is on it.
    pub items: Vec<T>,
    /// The `cursor` of the next page; null if this is the last one.
    pub next: Option<C>,
}

impl<T, C> Page<T, C> {
    /// A page of at most `limit` of the items that were found, of which there is one more if
    /// there is a next page.
    pub fn cut(mut items: Vec<T>, limit: usize, cursor: impl Fn(&T) -> C) -> Self {
        let more = items.len() > limit;
        items.truncate(limit);
        let next = if more { items.last().map(cursor) } else { None };
        Self { items, next }
    }
}

/// A list as a whole or in part.
pub trait Items {
    /// What it lists.
    type Item;

    /// What is on it.
    fn into_items(self) -> Vec<Self::Item>;
}

impl<T, C> Items for Page<T, C> {
    type Item = T;

    fn into_items(self) -> Vec<T> {
        self.items
    }
}

/// How many a page has: what was asked for, within what a page may have.
pub fn page_size(asked: Option<u32>, by_default: u32) -> usize {
    /// Most items of a page.
    const MOST: u32 = 500;
    asked.unwrap_or(by_default).clamp(1, MOST) as usize
}

/// No query.
#[derive(Debug, Clone, Default, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NoQuery {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_names_the_next_one_only_if_there_is_one() {
        let page = |found: usize| Page::cut((0..found).collect(), 3, |n| *n).next;
        assert_eq!([page(0), page(3), page(4)], [None, None, Some(2)]);
        assert_eq!([page_size(None, 50), page_size(Some(0), 50), page_size(Some(900), 50)], [50, 1, 500]);
    }
}
