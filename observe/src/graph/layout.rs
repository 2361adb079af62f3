//! Where nodes and edges are drawn: nodes in layers, callers before those they call; edges that pass a layer get a place in it,
//! so that they cross no node. (Sugiyama's method.)

use std::collections::BTreeMap;

/// Which way calls go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From left to right, for wide screens.
    Right,
    /// From top to bottom, for narrow ones.
    Down,
}

/// A place.
pub(crate) type Point = (f64, f64);

/// Where everything is.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Layout {
    /// The middle of every node.
    pub(crate) nodes: Vec<Point>,
    /// For every edge, the ends of its curves: from the first to the second place a curve, on to the third a straight line, and so
    /// on. Empty for an edge from a node to itself.
    pub(crate) routes: Vec<Vec<Point>>,
    pub(crate) width: f64,
    pub(crate) height: f64,
    /// Width and height of a node.
    pub(crate) node: (f64, f64),
    pub(crate) direction: Direction,
}

impl Direction {
    /// Width and height of a node.
    fn node(self) -> (f64, f64) {
        match self {
            Self::Right => (186.0, 54.0),
            Self::Down => (130.0, 54.0),
        }
    }

    /// Space between two layers.
    fn gap(self) -> f64 {
        match self {
            Self::Right => 156.0,
            Self::Down => 78.0,
        }
    }

    /// Space between two neighbours in a layer.
    fn aside(self) -> f64 {
        match self {
            Self::Right => 34.0,
            Self::Down => 10.0,
        }
    }

    /// Space around the whole.
    fn margin(self) -> f64 {
        match self {
            Self::Right => 24.0,
            Self::Down => 6.0,
        }
    }
}

/// What an edge that passes a layer takes of it.
const LANE: f64 = 30.0;
/// Passes over the layers, there and back.
const PASSES: usize = 8;
/// Distance between two edges at the side of a node, at most.
const PORT: f64 = 14.0;

/// Lays out `count` nodes with `edges` between them.
pub(crate) fn layout(count: usize, edges: &[(usize, usize)], direction: Direction) -> Layout {
    let mut grid = Grid::new(count, edges, direction);
    grid.order();
    grid.place();
    grid.layout(edges)
}

/// Nodes, and the lanes of edges, in layers.
struct Grid {
    direction: Direction,
    count: usize,
    /// The layer of each cell; the first `count` cells are nodes, the others lanes.
    layer: Vec<usize>,
    /// Cells from one layer to the next.
    links: Vec<(usize, usize)>,
    /// The lanes of each edge, from lower layers to higher ones.
    lanes: Vec<Vec<usize>>,
    /// The cells of each layer, in order.
    rows: Vec<Vec<usize>>,
    /// The middle of each cell, along its layer.
    across: Vec<f64>,
}

impl Grid {
    fn new(count: usize, edges: &[(usize, usize)], direction: Direction) -> Self {
        let mut layer = layers(count, &acyclic(count, edges));
        let (mut links, mut lanes) = (Vec::new(), Vec::with_capacity(edges.len()));
        for (from, to) in edges {
            let (low, high) = if layer[*from] <= layer[*to] { (*from, *to) } else { (*to, *from) };
            let mut own = Vec::new();
            let mut before = low;
            for between in layer[low] + 1..layer[high] {
                layer.push(between);
                links.push((before, layer.len() - 1));
                before = layer.len() - 1;
                own.push(before);
            }
            if from != to {
                links.push((before, high));
            }
            lanes.push(own);
        }
        let mut rows = vec![Vec::new(); layer.iter().max().map_or(0, |deepest| deepest + 1)];
        layer.iter().enumerate().for_each(|(cell, layer)| rows[*layer].push(cell));
        let across = vec![0.0; layer.len()];
        Self { direction, count, layer, links, lanes, rows, across }
    }

    /// The cells that `cell` is linked with in the layers before it, after it, or both.
    fn neighbours(&self) -> Vec<[Vec<usize>; 2]> {
        let mut neighbours = vec![[Vec::new(), Vec::new()]; self.layer.len()];
        for (low, high) in &self.links {
            neighbours[*high][0].push(*low);
            neighbours[*low][1].push(*high);
        }
        neighbours
    }

    /// Sorts the cells of each layer by the middle of their neighbours, so that few edges cross.
    fn order(&mut self) {
        let neighbours = self.neighbours();
        let mut rank: BTreeMap<usize, f64> = BTreeMap::new();
        let number = |row: &[usize], rank: &mut BTreeMap<usize, f64>| {
            let middle = (row.len() as f64 - 1.0) / 2.0;
            rank.extend(row.iter().enumerate().map(|(index, cell)| (*cell, index as f64 - middle)));
        };
        self.rows.iter().for_each(|row| number(row, &mut rank));
        for pass in 0..PASSES {
            let side = pass % 2;
            let order: Vec<usize> = if side == 0 { (0..self.rows.len()).collect() } else { (0..self.rows.len()).rev().collect() };
            for layer in order {
                let weight = |cell: usize| mean(neighbours[cell][side].iter().map(|other| rank[other])).unwrap_or(rank[&cell]);
                let mut weighted: Vec<_> = self.rows[layer].iter().map(|cell| (weight(*cell), *cell)).collect();
                weighted.sort_by(|a, b| a.0.total_cmp(&b.0));
                self.rows[layer] = weighted.into_iter().map(|(_, cell)| cell).collect();
                number(&self.rows[layer], &mut rank);
            }
        }
    }

    /// What a cell takes of its layer.
    fn size(&self, cell: usize) -> f64 {
        let (width, height) = self.direction.node();
        let node = if self.direction == Direction::Right { height } else { width };
        if cell < self.count { node + self.direction.aside() } else { LANE }
    }

    /// Gives each cell its place: as near to the middle of its neighbours as the order allows.
    fn place(&mut self) {
        let neighbours = self.neighbours();
        for layer in 0..self.rows.len() {
            let wanted = vec![0.0; self.rows[layer].len()];
            self.settle(layer, &wanted);
        }
        for pass in 0..PASSES {
            for turn in 0..self.rows.len() {
                let layer = if pass % 2 == 0 { turn } else { self.rows.len() - 1 - turn };
                let middle = |cell: &usize| {
                    let both = neighbours[*cell].iter().flatten().map(|other| self.across[*other]);
                    mean(both).unwrap_or(self.across[*cell])
                };
                let wanted: Vec<f64> = self.rows[layer].iter().map(middle).collect();
                self.settle(layer, &wanted);
            }
        }
        let edge = |cell: usize, side: f64| self.across[cell] + side * self.size(cell) / 2.0;
        let margin = self.direction.margin();
        let first = (0..self.layer.len()).map(|cell| edge(cell, -1.0)).fold(f64::INFINITY, f64::min);
        self.across.iter_mut().for_each(|across| *across += margin - first);
    }

    /// Places the cells of a layer as near as can be to where they are wanted: those that would overlap form a block, which goes to
    /// the middle of what its cells want. (Pool adjacent violators.)
    fn settle(&mut self, layer: usize, wanted: &[f64]) {
        let row = &self.rows[layer];
        // Where each cell would be if the first one were at 0 and all stood shoulder to shoulder.
        let mut offset = Vec::with_capacity(row.len());
        for (index, cell) in row.iter().enumerate() {
            let before =
                index.checked_sub(1).map_or(0.0, |before| offset[before] + (self.size(row[before]) + self.size(*cell)) / 2.0);
            offset.push(before);
        }
        let mut blocks: Vec<(f64, usize)> = Vec::new();
        for (index, wanted) in wanted.iter().enumerate() {
            blocks.push((wanted - offset[index], 1));
            while let [.., before, last] = &mut blocks[..] {
                if before.0 <= last.0 {
                    break;
                }
                let count = before.1 + last.1;
                *before = ((before.0 * before.1 as f64 + last.0 * last.1 as f64) / count as f64, count);
                blocks.pop();
            }
        }
        let starts = blocks.iter().flat_map(|(start, count)| std::iter::repeat_n(*start, *count));
        let placed: Vec<_> = row.iter().zip(starts.zip(&offset)).map(|(cell, (start, offset))| (*cell, start + offset)).collect();
        placed.into_iter().for_each(|(cell, across)| self.across[cell] = across);
    }

    fn layout(&self, edges: &[(usize, usize)]) -> Layout {
        let node = self.direction.node();
        let (deep, broad) = if self.direction == Direction::Right { node } else { (node.1, node.0) };
        let margin = self.direction.margin();
        let along = |cell: usize| margin + deep / 2.0 + self.layer[cell] as f64 * (deep + self.direction.gap());
        let turned = |(along, across): Point| if self.direction == Direction::Right { (along, across) } else { (across, along) };
        let ports = self.ports(edges, broad);
        let route = |index: usize, from: usize, to: usize| {
            if from == to {
                return Vec::new();
            }
            let (low, high) = if self.layer[from] <= self.layer[to] { (from, to) } else { (to, from) };
            let mut route = vec![(along(low) + deep / 2.0, self.across[low] + ports[&(index, low)])];
            for lane in &self.lanes[index] {
                route.extend([-1.0, 1.0].map(|side| (along(*lane) + side * deep / 2.0, self.across[*lane])));
            }
            route.push((along(high) - deep / 2.0, self.across[high] + ports[&(index, high)]));
            if low != from {
                route.reverse();
            }
            route.into_iter().map(turned).collect()
        };
        let layers = self.rows.len() as f64;
        let length = 2.0 * margin + layers * deep + (layers - 1.0).max(0.0) * self.direction.gap();
        let breadth = (0..self.layer.len()).map(|cell| self.across[cell] + self.size(cell) / 2.0).fold(margin, f64::max) + margin;
        let (width, height) = turned((length, breadth));
        Layout {
            nodes: (0..self.count).map(|cell| turned((along(cell), self.across[cell]))).collect(),
            routes: edges.iter().enumerate().map(|(index, (from, to))| route(index, *from, *to)).collect(),
            width,
            height,
            node,
            direction: self.direction,
        }
    }

    /// By edge and node, how far from the node's middle the edge meets it: side by side, in the order of where they lead.
    fn ports(&self, edges: &[(usize, usize)], broad: f64) -> BTreeMap<(usize, usize), f64> {
        let mut sides: BTreeMap<(usize, bool), Vec<(f64, usize)>> = BTreeMap::new();
        for (index, (from, to)) in edges.iter().enumerate().filter(|(_, (from, to))| from != to) {
            let (low, high) = if self.layer[*from] <= self.layer[*to] { (*from, *to) } else { (*to, *from) };
            let lanes = &self.lanes[index];
            let after = lanes.first().copied().unwrap_or(high);
            let before = lanes.last().copied().unwrap_or(low);
            sides.entry((low, true)).or_default().push((self.across[after], index));
            sides.entry((high, false)).or_default().push((self.across[before], index));
        }
        let mut ports = BTreeMap::new();
        for ((node, _), mut side) in sides {
            side.sort_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let distance = PORT.min((broad - 16.0) / side.len() as f64);
            let middle = (side.len() as f64 - 1.0) / 2.0;
            ports.extend(side.iter().enumerate().map(|(place, (_, edge))| ((*edge, node), (place as f64 - middle) * distance)));
        }
        ports
    }
}

fn mean(values: impl Iterator<Item = f64>) -> Option<f64> {
    let (sum, count) = values.fold((0.0, 0), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / f64::from(count))
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

/// Longest way from a node that nobody calls; those nodes themselves stand just before the first they call.
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
    for node in 0..count {
        if forward.iter().all(|(_, to)| *to != node) {
            let nearest = forward.iter().filter(|(from, _)| *from == node).map(|(_, to)| layers[*to] - 1).min();
            layers[node] = nearest.unwrap_or(0);
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
        let layout = layout(4, &[(0, 1), (1, 2), (0, 2), (2, 1), (2, 3), (3, 3)], Direction::Right);
        let columns: Vec<_> = layout.nodes.iter().map(|node| node.0).collect();
        assert!(columns.is_sorted(), "{columns:?}");
        assert!(layout.routes[5].is_empty() && layout.routes[3].first() > layout.routes[3].last());
    }

    fn overlap(a: Point, b: Point, size: (f64, f64)) -> bool {
        (a.0 - b.0).abs() < size.0 && (a.1 - b.1).abs() < size.1
    }

    proptest! {
        #[test]
        fn nothing_lies_upon_a_node(edges in prop::collection::btree_set((0_usize..12, 0_usize..12), 0..40)) {
            let edges: Vec<_> = edges.into_iter().collect();
            for direction in [Direction::Right, Direction::Down] {
                let layout = layout(12, &edges, direction);
                for (index, node) in layout.nodes.iter().enumerate() {
                    prop_assert!((0.0..=layout.width).contains(&node.0) && (0.0..=layout.height).contains(&node.1));
                    for other in &layout.nodes[index + 1..] {
                        prop_assert!(!overlap(*node, *other, layout.node), "{node:?} {other:?}");
                    }
                    let half = (layout.node.0 - 1.0, layout.node.1 - 1.0);
                    for point in layout.routes.iter().flatten() {
                        prop_assert!(!overlap(*node, *point, (half.0 / 2.0, half.1 / 2.0)), "{node:?} {point:?}");
                    }
                }
            }
        }
    }
}
