//! What is counted.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of file operations, in microseconds.
const BUCKETS: [u64; 8] = [500, 1_000, 5_000, 10_000, 50_000, 100_000, 500_000, 1_000_000];

/// Counters since the start.
#[derive(Debug, Default)]
pub(crate) struct Metrics {
    connected: AtomicU64,
    recovered: AtomicU64,
    refused: AtomicU64,
    messages: AtomicU64,
    requests: AtomicU64,
    errors: AtomicU64,
    file_operations: AtomicU64,
    file_micros: AtomicU64,
    file_buckets: [AtomicU64; BUCKETS.len()],
}

impl Metrics {
    pub(crate) fn connected(&self) {
        self.connected.fetch_add(1, Relaxed);
    }

    pub(crate) fn recovered(&self) {
        self.recovered.fetch_add(1, Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.refused.fetch_add(1, Relaxed);
    }

    pub(crate) fn received(&self) {
        self.messages.fetch_add(1, Relaxed);
    }

    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.errors.fetch_add(1, Relaxed);
    }

    pub(crate) fn file_operation(&self, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.file_operations.fetch_add(1, Relaxed);
        self.file_micros.fetch_add(micros, Relaxed);
        for (bound, bucket) in BUCKETS.iter().zip(&self.file_buckets) {
            if micros <= *bound {
                bucket.fetch_add(1, Relaxed);
            }
        }
    }

    pub(crate) fn counted(&self) -> Counted {
        Counted {
            connected: self.connected.load(Relaxed),
            recovered: self.recovered.load(Relaxed),
            refused: self.refused.load(Relaxed),
            messages: self.messages.load(Relaxed),
            requests: self.requests.load(Relaxed),
            errors: self.errors.load(Relaxed),
        }
    }

    /// The latency of file operations as a Prometheus histogram.
    pub(crate) fn file_histogram(&self, name: &str) -> String {
        use std::fmt::Write;
        let mut out = format!("# TYPE {name} histogram\n");
        let total = self.file_operations.load(Relaxed);
        for (bound, bucket) in BUCKETS.iter().zip(&self.file_buckets) {
            let seconds = Duration::from_micros(*bound).as_secs_f64();
            let _ = writeln!(out, "{name}_bucket{{le=\"{seconds}\"}} {}", bucket.load(Relaxed));
        }
        let sum = Duration::from_micros(self.file_micros.load(Relaxed)).as_secs_f64();
        let _ = writeln!(out, "{name}_bucket{{le=\"+Inf\"}} {total}\n{name}_sum {sum}\n{name}_count {total}");
        out
    }
}

/// The counters at one moment.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Counted {
    pub(crate) connected: u64,
    pub(crate) recovered: u64,
    pub(crate) refused: u64,
    pub(crate) messages: u64,
    pub(crate) requests: u64,
    pub(crate) errors: u64,
}
