//! Reading server-sent events, bytes split anywhere.

/// Most bytes of one event; a hub's are at most some MiB.
const MOST: usize = 64 << 20;

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Event {
    /// Where to go on after it; empty for none.
    pub id: String,
    /// What it is, such as `output` or `end`.
    pub kind: String,
    /// Its content, JSON.
    pub data: String,
}

impl Event {
    /// Reads the content.
    ///
    /// # Errors
    /// If the content is not of that type.
    pub fn read<T: serde::de::DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_str(&self.data)
    }
}

/// Gathers bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
    /// So much of the buffer holds no end of an event.
    searched: usize,
}

impl Parser {
    /// Takes bytes in; returns the events that are whole now, `None` if one is too long.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Option<Vec<Event>> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        let (mut start, mut at) = (0, self.searched);
        while let Some(end) = self.buffer[at..].windows(2).position(|w| w == b"\n\n").map(|found| at + found)
        {
            events.extend(event(&self.buffer[start..end]));
            (start, at) = (end + 2, end + 2);
        }
        self.buffer.drain(..start);
        self.searched = self.buffer.len().saturating_sub(1);
        (self.buffer.len() <= MOST).then_some(events)
    }
}

fn event(block: &[u8]) -> Option<Event> {
    let mut event = Event::default();
    for line in String::from_utf8_lossy(block).lines() {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "id" => event.id = value.to_owned(),
            "event" => event.kind = value.to_owned(),
            "data" => {
                if !event.data.is_empty() {
                    event.data.push('\n');
                }
                event.data.push_str(value);
            }
            _ => {}
        }
    }
    (!event.kind.is_empty() || !event.data.is_empty()).then_some(event)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_out_whole_however_the_bytes_are_split() {
        let text =
            ": comment\n\nid: 1\nevent: output\ndata: {\"a\":\"é\"}\n\nid:2\nevent:end\ndata:x\ndata:y\n\n";
        let want = [("1", "output", "{\"a\":\"é\"}"), ("2", "end", "x\ny")];
        for size in 1..=text.len() {
            let mut parser = Parser::default();
            let pieces = text.as_bytes().chunks(size);
            let events: Vec<Event> = pieces.flat_map(|piece| parser.feed(piece).expect("short")).collect();
            let got: Vec<_> =
                events.iter().map(|e| (e.id.as_str(), e.kind.as_str(), e.data.as_str())).collect();
            assert_eq!(got, want, "pieces of {size}");
        }
    }
}
