//! Where nodes are drawn: in layers, callers to the left of those they call, with few crossings.

use std::collections::BTreeMap;

/// The middle of every node, and the size of the whole.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    pub(crate) positions: Vec<(f64, f64)>,
    pub(crate) width: f64,
    pub(crate) height: f64,
}

pub(crate) const NODE_WIDTH: f64 = 150.0;
pub(crate) const NODE_HEIGHT: f64 = 46.0;
const COLUMN: f64 = 270.0;
const ROW: f64 = 92.0;
const MARGIN: f64 = 30.0;
/// Passes over the layers, there and back.
const PASSES: usize = 8;

/// Lays out `count` nodes with `edges` between them.
pub(crate) fn layout(count: usize, edges: &[(usize, usize)]) -> Layout {
    let forward = acyclic(count, edges);
    let layers = layers(count, &forward);
    let depth = layers.iter().max().map_or(0, |deepest| deepest + 1);
    let mut columns: Vec<Vec<usize>> = vec![Vec::new(); depth];
    for (node, layer) in layers.iter().enumerate() {
        columns[*layer].push(node);
    }
    let mut rank: BTreeMap<usize, f64> = BTreeMap::new();
    let renumber = |column: &[usize], rank: &mut BTreeMap<usize, f64>| {
        for (index, node) in column.iter().enumerate() {
            rank.insert(*node, index as f64 - (column.len() as f64 - 1.0) / 2.0);
        }
    };
    columns.iter().for_each(|column| renumber(column, &mut rank));
    for pass in 0..PASSES {
        let order: Vec<usize> = if pass % 2 == 0 { (0..depth).collect() } else { (0..depth).rev().collect() };
        for layer in order {
            let weight = |node: usize| {
                let neighbours = forward.iter().filter_map(|(from, to)| match pass % 2 == 0 {
                    true => (*to == node).then_some(*from),
                    false => (*from == node).then_some(*to),
                });
                let ranks: Vec<f64> = neighbours.filter_map(|other| rank.get(&other).copied()).collect();
                if ranks.is_empty() {
                    rank.get(&node).copied().unwrap_or(0.0)
                } else {
                    ranks.iter().sum::<f64>() / ranks.len() as f64
                }
            };
            let mut weighted: Vec<_> = columns[layer].iter().map(|node| (weight(*node), *node)).collect();
            weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
            columns[layer] = weighted.into_iter().map(|(_, node)| node).collect();
            renumber(&columns[layer], &mut rank);
        }
    }
    let tallest = columns.iter().map(Vec::len).max().unwrap_or(0).max(1) as f64;
    let height = tallest * ROW + 2.0 * MARGIN;
    let position = |node: usize| {
        let x = MARGIN + NODE_WIDTH / 2.0 + layers[node] as f64 * COLUMN;
        (x, height / 2.0 + rank.get(&node).copied().unwrap_or(0.0) * ROW)
    };
    let width = 2.0 * MARGIN + NODE_WIDTH + depth.saturating_sub(1) as f64 * COLUMN;
    Layout { positions: (0..count).map(position).collect(), width, height }
}

/// The edges without loops, those that close a cycle turned round.
fn acyclic(count: usize, edges: &[(usize, usize)]) -> Vec<(usize, usize)> {
    #[derive(Clone, Copy, PartialEq)]
    enum Mark {
        New,
        Open,
        Done,
    }
    let mut targets: Vec<Vec<usize>> = vec![Vec::new(); count];
    edges.iter().filter(|(from, to)| from != to).for_each(|(from, to)| targets[*from].push(*to));
    let called: Vec<bool> = (0..count).map(|node| edges.iter().any(|(from, to)| *to == node && *from != node)).collect();
    let mut marks = vec![Mark::New; count];
    let mut forward = Vec::with_capacity(edges.len());
    // Those that nobody calls first, so that cycles are cut where they return.
    let mut roots: Vec<usize> = (0..count).collect();
    roots.sort_by_key(|node| called[*node]);
    for root in roots {
        if marks[root] != Mark::New {
            continue;
        }
        let mut stack = vec![(root, 0)];
        marks[root] = Mark::Open;
        while let Some((node, next)) = stack.last_mut() {
            let node = *node;
            let Some(target) = targets[node].get(*next).copied() else {
                marks[node] = Mark::Done;
                stack.pop();
                continue;
            };
            *next += 1;
            match marks[target] {
                Mark::Open => forward.push((target, node)),
                Mark::Done => forward.push((node, target)),
                Mark::New => {
                    forward.push((node, target));
                    marks[target] = Mark::Open;
                    stack.push((target, 0));
                }
            }
        }
    }
    forward
}

/// Longest way from a node that nobody calls.
fn layers(count: usize, forward: &[(usize, usize)]) -> Vec<usize> {
    let mut layers = vec![0; count];
    for _ in 0..count {
        let mut changed = false;
        for (from, to) in forward {
            if layers[*to] < layers[*from] + 1 {
                layers[*to] = layers[*from] + 1;
                changed = true;
            }
        }
        if !changed {
            break;
        }
    }
    layers
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn callers_are_left_of_those_they_call_and_a_cycle_ends() {
        let layout = layout(4, &[(0, 1), (1, 2), (0, 2), (2, 1), (2, 3), (3, 3)]);
        let columns: Vec<_> = layout.positions.iter().map(|position| position.0).collect();
        assert!(columns.is_sorted(), "{columns:?}");
    }

    proptest! {
        #[test]
        fn no_two_nodes_are_in_one_place(edges in prop::collection::vec((0_usize..12, 0_usize..12), 0..40)) {
            let layout = layout(12, &edges);
            for (index, a) in layout.positions.iter().enumerate() {
                prop_assert!((0.0..=layout.width).contains(&a.0) && (0.0..=layout.height).contains(&a.1));
                for b in &layout.positions[index + 1..] {
                    prop_assert!((a.0 - b.0).abs() >= NODE_WIDTH || (a.1 - b.1).abs() >= NODE_HEIGHT);
                }
            }
        }
    }
}
