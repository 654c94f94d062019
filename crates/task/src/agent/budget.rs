//! What an agent may use up, and what it has.

use std::collections::BTreeMap;

use legwork_proto::task::Usage as Report;

use crate::config::{Agent, Budget, Price};
use crate::journal::Tokens;

/// The least that is worth asking for.
const LEAST_OUTPUT: u64 = 256;

#[derive(Debug)]
pub(super) struct Meter {
    budget: Budget,
    price: Option<Price>,
    used: Tokens,
    turns: u64,
    /// Tokens that the last request read and its answer had, and its length.
    last: Option<(u64, usize)>,
}

impl Meter {
    pub(super) fn new(agent: &Agent) -> Self {
        Self {
            budget: agent.budget,
            price: agent.prices.get(&agent.model).copied(),
            used: Tokens::default(),
            turns: 0,
            last: None,
        }
    }

    /// The price is that of this model.
    pub(super) fn price_of(&mut self, model: &str, prices: &BTreeMap<String, Price>) {
        self.price = prices.get(model).copied().or(self.price);
    }

    /// Counts a whole answer to a request of so many bytes; `window` are the tokens that both
    /// have in the model's window, where that is not what they used.
    pub(super) fn count(&mut self, usage: Tokens, window: u64, request: usize) {
        self.turns += 1;
        let used = usage.input + usage.cache_creation + usage.cache_read + usage.output;
        self.last = Some((if window == 0 { used } else { window }, request));
        self.waste(usage);
    }

    /// The conversation is another one now.
    pub(super) fn forget_last(&mut self) {
        self.last = None;
    }

    /// What is left of the bounds: tokens, and US dollars.
    pub(super) fn left(&self) -> (Option<u64>, Option<f64>) {
        let used = self.used.input + self.used.cache_creation + self.used.cache_read + self.used.output;
        let tokens = self.budget.tokens.map(|tokens| tokens.saturating_sub(used));
        let usd = match (self.budget.usd, self.price) {
            (Some(usd), Some(price)) => Some((usd - cost(&price, &self.used)).max(0.0)),
            _ => None,
        };
        (tokens, usd)
    }

    /// Counts what came to nothing.
    pub(super) fn waste(&mut self, usage: Tokens) {
        self.used.input += usage.input;
        self.used.output += usage.output;
        self.used.cache_creation += usage.cache_creation;
        self.used.cache_read += usage.cache_read;
    }

    /// How many tokens a request of so many bytes will be, more or less.
    pub(super) fn estimate(&self, bytes: usize) -> u64 {
        // A token is rarely shorter than three bytes of text.
        let tokens = |bytes: usize| bytes as u64 / 3;
        match self.last {
            // What was left out since is counted by less, so that too much is guessed.
            Some((known, before)) if bytes < before => known.saturating_sub((before - bytes) as u64 / 4),
            Some((known, before)) => known + tokens(bytes - before),
            None => tokens(bytes),
        }
    }

    /// How many tokens the next answer may have, or what is used up.
    pub(super) fn reserve(&self, request: usize, max_tokens: u64) -> Result<u64, String> {
        let input = self.estimate(request);
        let mut allowed = max_tokens;
        if let Some(tokens) = self.budget.tokens {
            let used = self.used.input + self.used.cache_creation + self.used.cache_read + self.used.output;
            let left = tokens.saturating_sub(used + input);
            if left < LEAST_OUTPUT.min(max_tokens) {
                return Err(format!(
                    "Budget exceeded: {used} of {tokens} tokens are used, and the next request needs about {input} and the answer"
                ));
            }
            allowed = allowed.min(left);
        }
        if let (Some(usd), Some(price)) = (self.budget.usd, self.price) {
            let used = cost(&price, &self.used);
            #[allow(clippy::cast_precision_loss, reason = "an estimate")]
            let needed = input as f64 * price.input.max(price.cache_write) / 1e6;
            let left = usd - used - needed;
            #[allow(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "the cast saturates, and what is negative is none"
            )]
            let affordable = if price.output > 0.0 { (left * 1e6 / price.output) as u64 } else { u64::MAX };
            if left <= 0.0 || affordable < LEAST_OUTPUT.min(max_tokens) {
                return Err(format!(
                    "Budget exceeded: {used:.4} of {usd:.4} US dollars are used, and the next request costs up to {needed:.4} and the answer"
                ));
            }
            allowed = allowed.min(affordable);
        }
        Ok(allowed)
    }

    /// All that was used.
    pub(super) fn report(&self) -> Report {
        let used = &self.used;
        let read = used.input + used.cache_creation + used.cache_read;
        #[allow(clippy::cast_precision_loss, reason = "a ratio")]
        let ratio = if read == 0 { 0.0 } else { used.cache_read as f64 / read as f64 };
        Report {
            turns: self.turns,
            input_tokens: used.input,
            output_tokens: used.output,
            cache_creation_input_tokens: used.cache_creation,
            cache_read_input_tokens: used.cache_read,
            cache_hit_ratio: (ratio * 1000.0).round() / 1000.0,
            cost_usd: self.price.map(|price| (cost(&price, used) * 1e6).round() / 1e6),
        }
    }
}

#[allow(clippy::cast_precision_loss, reason = "money")]
fn cost(price: &Price, used: &Tokens) -> f64 {
    (used.input as f64 * price.input
        + used.output as f64 * price.output
        + used.cache_read as f64 * price.cache_read
        + used.cache_creation as f64 * price.cache_write)
        / 1e6
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meter(tokens: Option<u64>, usd: Option<f64>) -> Meter {
        let price = Price { input: 3.0, output: 15.0, cache_read: 0.3, cache_write: 3.75 };
        Meter {
            budget: Budget { tokens, usd, time: None },
            price: Some(price),
            used: Tokens::default(),
            turns: 0,
            last: None,
        }
    }

    #[test]
    fn the_next_call_must_fit() {
        let mut meter = meter(Some(10_000), None);
        assert_eq!(meter.reserve(3000, 4096), Ok(4096));
        meter.count(Tokens { input: 1000, output: 4000, ..Tokens::default() }, 0, 3000);
        // 5,000 are used, and the next request is 5,000 long at least.
        assert!(meter.reserve(3300, 4096).is_err_and(|e| e.contains("5000 of 10000 tokens")));
    }

    #[test]
    fn money_is_counted_by_kind() {
        let mut meter = meter(None, Some(0.05));
        meter.count(Tokens { input: 1000, output: 1000, cache_creation: 1000, cache_read: 1000 }, 0, 10);
        let report = meter.report();
        assert_eq!(report.cost_usd, Some(0.02205));
        assert!((report.cache_hit_ratio - 0.333).abs() < 1e-9);
        assert!(meter.reserve(10, 4096).expect("room") < 4096);
        meter.waste(Tokens { output: 4000, ..Tokens::default() });
        assert!(meter.reserve(10, 4096).is_err_and(|e| e.contains("US dollars")));
    }
}
