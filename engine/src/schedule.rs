//! Which step is next: counters of unmet dependencies and a heap by longest remaining path.
//!
//! Invariant: pure bookkeeping, no clock, no I/O. Each edge is looked at once on the way down and once when it is met: no
//! waves, no rescans.
//!
//! A node passes two marks. It is *prepared* when its outputs are there; it is *settled* when, besides, what it publishes
//! is visible and everything it depends on is settled. A value edge waits for the first mark of its source, an order edge
//! for the second.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// What an edge waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Edge {
    /// The outputs of the source.
    Value,
    /// The source as a whole, with what it publishes.
    Order,
}

/// The state of a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Waiting,
    Started,
    /// Started, but something it depends on has failed since: it must not publish.
    Doomed,
    Prepared,
    Settled,
    Failed,
}

/// Edges from each node, in one array.
#[derive(Clone, Debug)]
struct Edges {
    starts: Vec<u32>,
    targets: Vec<(u32, Edge)>,
}

impl Edges {
    fn new(nodes: usize, edges: &[(usize, usize, Edge)]) -> Self {
        let mut starts = vec![0_u32; nodes + 1];
        for (source, _, _) in edges {
            starts[source + 1] += 1;
        }
        for node in 0..nodes {
            starts[node + 1] += starts[node];
        }
        let mut at = starts.clone();
        let mut targets = vec![(0, Edge::Value); edges.len()];
        for (source, target, edge) in edges {
            targets[at[*source] as usize] = (*target as u32, *edge);
            at[*source] += 1;
        }
        Self { starts, targets }
    }

    fn of(&self, node: usize) -> &[(u32, Edge)] {
        &self.targets[self.starts[node] as usize..self.starts[node + 1] as usize]
    }
}

/// The order of one run. Nodes are numbered from zero in document order.
#[derive(Clone, Debug)]
pub struct Schedule {
    edges: Edges,
    states: Vec<State>,
    /// Dependencies that a node's start still waits for.
    unmet: Vec<u32>,
    /// Dependencies that are not settled yet: what a node's own settling waits for.
    unsettled: Vec<u32>,
    /// Nodes on the longest way from here to an end, this one included.
    priority: Vec<u32>,
    ready: BinaryHeap<(u32, Reverse<u32>)>,
    unprepared: usize,
}

impl Schedule {
    /// A schedule over `nodes` nodes; each pair of nodes at most once in `edges`, and no cycles.
    pub fn new(nodes: usize, edges: &[(usize, usize, Edge)]) -> Self {
        let mut unmet = vec![0_u32; nodes];
        for (_, target, _) in edges {
            unmet[*target] += 1;
        }
        let edges = Edges::new(nodes, edges);
        let priority = longest_paths(&edges, &unmet);
        let ready = (0..nodes)
            .filter(|node| unmet[*node] == 0)
            .map(|node| (priority[node], Reverse(node as u32)));
        Self {
            ready: ready.collect(),
            states: vec![State::Waiting; nodes],
            unsettled: unmet.clone(),
            unmet,
            priority,
            edges,
            unprepared: nodes,
        }
    }

    /// The ready node with the longest way to go; among equals the first in the document.
    pub fn start(&mut self) -> Option<usize> {
        while let Some((_, Reverse(node))) = self.ready.pop() {
            let node = node as usize;
            if self.states[node] == State::Waiting {
                self.states[node] = State::Started;
                return Some(node);
            }
        }
        None
    }

    /// The node's outputs are there. Tells whether it may publish now, since all it depends on is settled.
    pub fn prepared(&mut self, node: usize) -> bool {
        self.states[node] = State::Prepared;
        self.unprepared -= 1;
        self.meet(node, Edge::Value);
        self.unsettled[node] == 0
    }

    /// The node has published or has nothing to publish, and all it depends on is settled. Returns the prepared nodes
    /// that may publish (or settle) now.
    pub fn settled(&mut self, node: usize) -> Vec<usize> {
        self.states[node] = State::Settled;
        self.meet(node, Edge::Order);
        let mut released = Vec::new();
        for (target, _) in self.edges.of(node) {
            let target = *target as usize;
            self.unsettled[target] -= 1;
            if self.unsettled[target] == 0 && self.states[target] == State::Prepared {
                released.push(target);
            }
        }
        released
    }

    /// The node failed: returns everything that depends on it, in document order. What waits does not start; what has
    /// prepared does not publish; what is at work is [doomed](Self::is_doomed), since a value edge let it start before
    /// its source had published.
    pub fn failed(&mut self, node: usize) -> Vec<usize> {
        self.end(node);
        let mut skipped = Vec::new();
        let mut stack = vec![node];
        while let Some(node) = stack.pop() {
            for (target, _) in self.edges.of(node).to_vec() {
                let target = target as usize;
                match self.states[target] {
                    State::Waiting | State::Prepared => self.end(target),
                    State::Started => self.states[target] = State::Doomed,
                    State::Doomed | State::Settled | State::Failed => continue,
                }
                skipped.push(target);
                stack.push(target);
            }
        }
        skipped.sort_unstable();
        skipped
    }

    /// A doomed node came to its end.
    pub fn end(&mut self, node: usize) {
        if matches!(
            self.states[node],
            State::Waiting | State::Started | State::Doomed
        ) {
            self.unprepared -= 1;
        }
        self.states[node] = State::Failed;
    }

    /// Did something that this started node depends on fail meanwhile?
    pub fn is_doomed(&self, node: usize) -> bool {
        self.states[node] == State::Doomed
    }

    /// Has the node ended well, with what it publishes?
    pub fn is_settled(&self, node: usize) -> bool {
        self.states[node] == State::Settled
    }

    /// Nodes that have neither prepared nor failed.
    pub fn unprepared(&self) -> usize {
        self.unprepared
    }

    /// Nodes that were never started.
    pub fn waiting(&self) -> impl Iterator<Item = usize> + '_ {
        self.states
            .iter()
            .enumerate()
            .filter(|(_, state)| **state == State::Waiting)
            .map(|(node, _)| node)
    }

    /// Does a node wait for this one's publishing before it starts?
    pub fn has_order_dependents(&self, node: usize) -> bool {
        self.edges
            .of(node)
            .iter()
            .any(|(_, edge)| *edge == Edge::Order)
    }

    /// Is something ready to start?
    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    fn meet(&mut self, node: usize, edge: Edge) {
        for (target, kind) in self.edges.of(node) {
            if *kind != edge {
                continue;
            }
            let target = *target as usize;
            self.unmet[target] -= 1;
            if self.unmet[target] == 0 && self.states[target] == State::Waiting {
                self.ready
                    .push((self.priority[target], Reverse(target as u32)));
            }
        }
    }
}

/// Longest path to an end for every node, by one pass over a topological order and back.
fn longest_paths(edges: &Edges, indegree: &[u32]) -> Vec<u32> {
    let nodes = indegree.len();
    let mut indegree = indegree.to_vec();
    let mut order: Vec<u32> = (0..nodes as u32)
        .filter(|node| indegree[*node as usize] == 0)
        .collect();
    let mut at = 0;
    while at < order.len() {
        for (target, _) in edges.of(order[at] as usize) {
            indegree[*target as usize] -= 1;
            if indegree[*target as usize] == 0 {
                order.push(*target);
            }
        }
        at += 1;
    }
    let mut longest = vec![1_u32; nodes];
    for node in order.iter().rev().map(|node| *node as usize) {
        for (target, _) in edges.of(node) {
            longest[node] = longest[node].max(longest[*target as usize] + 1);
        }
    }
    longest
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a whole schedule one node at a time and returns the order of starts.
    fn order(nodes: usize, edges: &[(usize, usize, Edge)]) -> Vec<usize> {
        let mut schedule = Schedule::new(nodes, edges);
        let mut started = Vec::new();
        while let Some(node) = schedule.start() {
            started.push(node);
            let mut settle = if schedule.prepared(node) {
                vec![node]
            } else {
                Vec::new()
            };
            while let Some(node) = settle.pop() {
                settle.extend(schedule.settled(node));
            }
        }
        assert_eq!(schedule.unprepared(), 0);
        started
    }

    #[test]
    fn the_longest_way_goes_first() {
        use Edge::Value;
        // 0 alone, 1 -> 2 -> 3, 4 -> 3
        assert_eq!(
            order(5, &[(1, 2, Value), (2, 3, Value), (4, 3, Value)]),
            [1, 2, 4, 0, 3]
        );
    }

    #[test]
    fn an_order_edge_waits_for_what_is_published() {
        let mut schedule = Schedule::new(3, &[(0, 1, Edge::Value), (0, 2, Edge::Order)]);
        assert_eq!(schedule.start(), Some(0));
        assert_eq!(schedule.start(), None);
        assert!(schedule.prepared(0));
        assert_eq!(
            schedule.start(),
            Some(1),
            "a value edge is met by the outputs"
        );
        assert_eq!(schedule.start(), None, "an order edge is not");
        assert!(
            !schedule.prepared(1),
            "what depends on an unpublished node does not publish"
        );
        assert_eq!(schedule.settled(0), [1]);
        assert_eq!(schedule.start(), Some(2));
    }

    #[test]
    fn a_failure_skips_what_depends_on_it_and_nothing_else() {
        use Edge::Value;
        let mut schedule = Schedule::new(5, &[(0, 1, Value), (1, 2, Value), (3, 4, Value)]);
        assert_eq!(schedule.start(), Some(0));
        assert_eq!(schedule.failed(0), [1, 2]);
        assert_eq!(schedule.unprepared(), 2);
        assert_eq!(schedule.start(), Some(3));
    }
}
