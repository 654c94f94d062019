//! Reading server-sent events, bytes split anywhere.

/// An event.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Event {
    pub(crate) id: String,
    pub(crate) kind: String,
    pub(crate) data: String,
}

/// Gathers bytes into events.
#[derive(Debug, Default)]
pub(crate) struct Parser {
    buffer: Vec<u8>,
}

impl Parser {
    /// Takes bytes in; returns the events that are whole now.
    pub(crate) fn feed(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.buffer.extend_from_slice(bytes);
        let mut events = Vec::new();
        while let Some(end) = self.buffer.windows(2).position(|w| w == b"\n\n") {
            let block: Vec<u8> = self.buffer.drain(..end + 2).collect();
            let mut event = Event::default();
            for line in String::from_utf8_lossy(&block).lines() {
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
            if !event.kind.is_empty() || !event.data.is_empty() {
                events.push(event);
            }
        }
        events
    }
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
            let events: Vec<Event> = text.as_bytes().chunks(size).flat_map(|c| parser.feed(c)).collect();
            let got: Vec<_> =
                events.iter().map(|e| (e.id.as_str(), e.kind.as_str(), e.data.as_str())).collect();
            assert_eq!(got, want, "pieces of {size}");
        }
    }
}
