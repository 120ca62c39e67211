//! From rounds to figures, and from figures to a winner.
//!
//! **Invariants**: a figure is the median of the rounds' figures; a cell that failed once has none; what is not durable never wins;
//! cells that the rounds cannot tell apart are said to be as good as the winner. Times are µs.
//!
//! **Not here**: running, formatting.

use crate::probe::figures::{AS_GOOD, median, tenths};
use crate::report::Report;
use serde::Serialize;

/// One load of one round.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Sample {
    pub ops_per_s: f64,
    pub p50_us: f64,
    pub p99_us: f64,
    pub p99_9_us: f64,
    pub max_us: f64,
    pub errors: u64,
    pub server_cpu_us_per_op: f64,
    /// What the server says: the stage `log`, and the device's part of it.
    pub log_p50_us: f64,
    pub device_p50_us: f64,
}

impl Sample {
    /// Of a run of the load.
    pub(crate) fn of(report: &Report) -> Sample {
        let said = |name: &str| report.inside.p50_us(name).unwrap_or(0.0);
        Sample {
            ops_per_s: report.ops_per_s,
            p50_us: report.latency_us.p50,
            p99_us: report.latency_us.p99,
            p99_9_us: report.latency_us.p99_9,
            max_us: report.latency_us.max,
            errors: report.errors.total,
            server_cpu_us_per_op: report.cpu_us_per_op.server.unwrap_or(0.0),
            log_p50_us: said("stage_log"),
            device_p50_us: said("log_write") + said("log_flush"),
        }
    }
}

/// What a cell did in one round: alone, and under pressure.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub(crate) struct Round {
    /// One request at a time.
    pub single: Sample,
    /// Many.
    pub many: Sample,
}

/// Medians over the rounds.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[allow(missing_docs, reason = "the names say it")]
pub(crate) struct Figures {
    pub single: Sample,
    pub many: Sample,
    /// Lowest and highest of the rounds' medians, one request at a time.
    pub p50_us_low: f64,
    pub p50_us_high: f64,
    /// Lowest and highest rate of the rounds, under pressure.
    pub ops_per_s_low: f64,
    pub ops_per_s_high: f64,
}

impl Figures {
    /// Of the rounds that there are.
    pub(crate) fn of(rounds: &[Round]) -> Option<Figures> {
        if rounds.is_empty() {
            return None;
        }
        let of = |pick: &dyn Fn(&Round) -> f64| rounds.iter().map(pick).collect::<Vec<f64>>();
        let sample = |pick: &dyn Fn(&Round) -> &Sample| {
            let middle = |figure: &dyn Fn(&Sample) -> f64| tenths(median(of(&|round| figure(pick(round)))));
            Sample {
                ops_per_s: middle(&|it| it.ops_per_s),
                p50_us: middle(&|it| it.p50_us),
                p99_us: middle(&|it| it.p99_us),
                p99_9_us: middle(&|it| it.p99_9_us),
                max_us: of(&|round| pick(round).max_us).into_iter().fold(0.0, f64::max),
                errors: rounds.iter().map(|round| pick(round).errors).sum(),
                server_cpu_us_per_op: (median(of(&|round| pick(round).server_cpu_us_per_op)) * 100.0).round() / 100.0,
                log_p50_us: middle(&|it| it.log_p50_us),
                device_p50_us: middle(&|it| it.device_p50_us),
            }
        };
        let low = |values: Vec<f64>| values.into_iter().fold(f64::INFINITY, f64::min);
        let high = |values: Vec<f64>| values.into_iter().fold(0.0, f64::max);
        Some(Figures {
            single: sample(&|round| &round.single),
            many: sample(&|round| &round.many),
            p50_us_low: low(of(&|round| round.single.p50_us)),
            p50_us_high: high(of(&|round| round.single.p50_us)),
            ops_per_s_low: low(of(&|round| round.many.ops_per_s)),
            ops_per_s_high: high(of(&|round| round.many.ops_per_s)),
        })
    }
}

/// What the comparison came to, as places in the list of cells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    /// Durable, and the lowest latency of one write at a time.
    pub winner: Option<usize>,
    /// As good as that, for all that these rounds can tell.
    pub as_good: Vec<usize>,
    /// Durable, and the most writes a second under pressure.
    pub most: Option<usize>,
}

/// Compares the cells: whether each is durable, and its figures if it has any.
pub(crate) fn judge(cells: &[(bool, Option<&Figures>)]) -> Verdict {
    let durable: Vec<(usize, &Figures)> = cells
        .iter()
        .enumerate()
        .filter_map(|(at, (durable, figures))| figures.filter(|_| *durable).map(|it| (at, it)))
        .collect();
    let by = |figure: &dyn Fn(&Figures) -> f64| {
        durable.iter().min_by(|(_, a), (_, b)| figure(a).total_cmp(&figure(b))).copied()
    };
    let winner = by(&|it| it.single.p50_us);
    let as_good = winner.map_or(Vec::new(), |(best, figures)| {
        let bound = (figures.single.p50_us * AS_GOOD).max(figures.p50_us_high);
        let close = |(at, it): &(usize, &Figures)| (*at != best && it.single.p50_us <= bound).then_some(*at);
        durable.iter().filter_map(close).collect()
    });
    Verdict { winner: winner.map(|(at, _)| at), as_good, most: by(&|it| -it.many.ops_per_s).map(|(at, _)| at) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    pub(crate) fn sample(p50_us: f64, ops_per_s: f64) -> Sample {
        Sample {
            ops_per_s,
            p50_us,
            p99_us: p50_us * 2.0,
            p99_9_us: p50_us * 3.0,
            max_us: p50_us * 4.0,
            errors: 0,
            server_cpu_us_per_op: 1.234,
            log_p50_us: p50_us * 0.9,
            device_p50_us: p50_us * 0.8,
        }
    }

    pub(crate) fn figures(p50s: &[f64], ops_per_s: f64) -> Figures {
        let round = |p50: &f64| Round { single: sample(*p50, 1e6 / p50), many: sample(1000.0, ops_per_s) };
        Figures::of(&p50s.iter().map(round).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn one_disturbed_round_moves_no_figure_but_the_longest() {
        let found = figures(&[100.0, 9000.0, 104.0], 5.0);
        assert_eq!((found.single.p50_us, found.p50_us_low, found.p50_us_high), (104.0, 100.0, 9000.0));
        assert_eq!((found.single.max_us, found.single.p99_us), (36_000.0, 208.0));
        assert_eq!(Figures::of(&[]), None);
    }

    #[test]
    fn the_winner_is_durable_and_what_cannot_be_told_from_it_is_as_good() {
        let fast = figures(&[50.0, 51.0, 52.0], 9e6);
        let (good, close, slow) = (
            figures(&[100.0, 101.0, 103.0], 4e5),
            figures(&[104.0, 105.0, 106.0], 5e5),
            figures(&[180.0, 181.0, 185.0], 3e5),
        );
        let verdict = judge(&[
            (false, Some(&fast)),
            (true, Some(&slow)),
            (true, Some(&good)),
            (true, None),
            (true, Some(&close)),
        ]);
        assert_eq!(verdict, Verdict { winner: Some(2), as_good: vec![4], most: Some(4) });
        let noisy = figures(&[100.0, 101.0, 182.0], 4e5);
        assert_eq!(judge(&[(true, Some(&noisy)), (true, Some(&slow))]).as_good, [1], "its own rounds differ as much");
        assert_eq!(judge(&[(false, Some(&fast)), (true, None)]), Verdict::default());
    }
}
