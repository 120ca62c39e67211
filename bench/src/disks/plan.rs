//! What is compared: the cells, and the order in which each round runs them.
//!
//! **Invariants**: no cell twice; a cell's settings are those that its report names, all of them; the order depends on the seed
//! alone, and is another one in each round, so that what happens on the machine now and then does not always meet the same cell.
//!
//! **Not here**: running ([`super::run`]); whether a cell works where it is (it is tried, and reported).

use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use std::path::PathBuf;

/// One configuration of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cell {
    /// Under which directory its log is.
    pub log_dir: PathBuf,
    /// Under which its snapshots are.
    pub data_dir: PathBuf,
    /// `log.io`.
    pub io: String,
    /// `log.sync`.
    pub sync: String,
    /// What else is set, as `(key, value)`.
    pub others: Vec<(String, String)>,
}

impl Cell {
    /// `uring-direct/dsync log.pipelineDepth=2`.
    pub(crate) fn mode(&self) -> String {
        let others: String = self.others.iter().map(|(key, value)| format!(" {key}={value}")).collect();
        format!("{}/{}{others}", self.io, self.sync)
    }

    /// Whether an acknowledged write survives a power loss.
    pub(crate) fn is_durable(&self) -> bool {
        let later = self.others.iter().rev().find(|(key, _)| key == "log.sync");
        later.map_or(self.sync.as_str(), |(_, value)| value) != "none"
    }

    /// The settings, directories excepted: the order decides where one is given twice.
    pub(crate) fn settings(&self) -> Vec<String> {
        let mode = [format!("log.io={}", self.io), format!("log.sync={}", self.sync)];
        mode.into_iter().chain(self.others.iter().map(|(key, value)| format!("{key}={value}"))).collect()
    }
}

/// What the cells are made of.
#[derive(Clone, Debug, Default)]
pub(crate) struct Axes {
    /// Directories for logs, and for snapshots; if only one of the two is given, a cell has both in the same.
    pub log_dirs: Vec<PathBuf>,
    pub data_dirs: Vec<PathBuf>,
    pub ios: Vec<String>,
    pub syncs: Vec<String>,
    /// Each key with its values.
    pub others: Vec<(String, Vec<String>)>,
}

impl Axes {
    /// The cross product.
    pub(crate) fn cells(&self) -> Vec<Cell> {
        let same = |dir: &PathBuf| (dir.clone(), dir.clone());
        let places: Vec<(PathBuf, PathBuf)> = match (self.log_dirs.as_slice(), self.data_dirs.as_slice()) {
            (logs, []) => logs.iter().map(same).collect(),
            ([], datas) => datas.iter().map(same).collect(),
            (logs, datas) => logs.iter().flat_map(|log| datas.iter().map(|data| (log.clone(), data.clone()))).collect(),
        };
        let mut cells = Vec::new();
        for ((log_dir, data_dir), io, sync) in product3(&places, &self.ios, &self.syncs) {
            cells.push(Cell { log_dir, data_dir, io, sync, others: Vec::new() });
        }
        for (key, values) in &self.others {
            let with = |cell: &Cell, value: &String| {
                let mut cell = cell.clone();
                cell.others.push((key.clone(), value.clone()));
                cell
            };
            cells = cells.iter().flat_map(|cell| values.iter().map(|value| with(cell, value))).collect();
        }
        let mut once: Vec<Cell> = Vec::new();
        cells.into_iter().for_each(|cell| {
            if !once.contains(&cell) {
                once.push(cell);
            }
        });
        once
    }
}

fn product3<A: Clone, B: Clone, C: Clone>(a: &[A], b: &[B], c: &[C]) -> Vec<(A, B, C)> {
    let with = |a: &A, b: &B| c.iter().map(|c| (a.clone(), b.clone(), c.clone())).collect::<Vec<_>>();
    a.iter().flat_map(|a| b.iter().flat_map(|b| with(a, b)).collect::<Vec<_>>()).collect()
}

/// For each round the cells in their order, as indices.
pub(crate) fn order(cells: usize, rounds: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut random = SmallRng::seed_from_u64(seed);
    let mut shuffled = || {
        let mut order: Vec<usize> = (0..cells).collect();
        order.shuffle(&mut random);
        order
    };
    (0..rounds).map(|_| shuffled()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn axes() -> Axes {
        let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
        Axes {
            log_dirs: vec!["/a".into(), "/b".into()],
            data_dirs: vec![],
            ios: words(&["uring-direct", "pwrite", "pwrite"]),
            syncs: words(&["dsync", "none"]),
            others: vec![("log.pipelineDepth".to_owned(), words(&["1", "2", "4"]))],
        }
    }

    #[test]
    fn the_cells_are_the_cross_product_and_none_is_there_twice() {
        let cells = axes().cells();
        assert_eq!(cells.len(), 2 * 2 * 2 * 3);
        assert!(cells.iter().all(|cell| cell.log_dir == cell.data_dir));
        assert_eq!(cells[1].mode(), "uring-direct/dsync log.pipelineDepth=2");
        assert_eq!(cells[1].settings(), ["log.io=uring-direct", "log.sync=dsync", "log.pipelineDepth=2"]);
        let apart = Axes { data_dirs: vec!["/c".into(), "/d".into(), "/e".into()], ..axes() };
        assert_eq!(apart.cells().len(), 2 * 3 * 2 * 2 * 3);
        let only_data = Axes { log_dirs: vec![], data_dirs: vec!["/c".into()], ..axes() };
        assert!(only_data.cells().iter().all(|cell| cell.log_dir == cell.data_dir));
    }

    #[test]
    fn what_is_not_durable_is_known_however_it_was_said() {
        let durable = |cell: &Cell| cell.is_durable();
        assert_eq!(axes().cells().iter().filter(|cell| durable(cell)).count(), 12);
        let others = vec![("log.sync".to_owned(), "none".to_owned())];
        assert!(!Cell { others, ..axes().cells()[0].clone() }.is_durable());
    }

    #[test]
    fn each_round_has_every_cell_in_another_order() {
        let rounds = order(24, 3, 1);
        assert_eq!(rounds, order(24, 3, 1));
        assert!(rounds != order(24, 3, 2) && rounds[0] != rounds[1]);
        for mut round in rounds {
            round.sort_unstable();
            assert_eq!(round, (0..24).collect::<Vec<_>>());
        }
    }
}
