//! What a text may cost: bounds on its size, nesting, values, and on what aliases make of it.

use super::{Node, Span, Value, YamlError};

/// Default limit on the text, in bytes: 100,000 long steps or 20,000 long resources fit five times over.
pub const TEXT_LIMIT: usize = 128 << 20;
/// Default limit on nesting, in lists and maps within each other: hand-written documents stay below 20.
pub const DEPTH_LIMIT: usize = 128;
/// Highest nesting that options may ask for: trees are walked by recursion, and stacks are 2 MiB in threads.
pub const DEPTH_CEILING: usize = 256;
/// Default limit on nodes (scalars, lists, maps): a plan of 100,000 steps has about 1,500,000.
pub const NODE_LIMIT: usize = 4_000_000;
/// Default limit on nodes that aliases copy, and on nodes kept for them: far above honest use, far below a bomb.
pub const ALIAS_NODE_LIMIT: usize = 400_000;
/// Limit on bytes of text that aliases copy, and on those kept for them: a long text behind many aliases is a bomb, too.
pub(super) const ALIAS_TEXT_LIMIT: usize = 16 << 20;

/// The limits in force for one text.
pub(crate) struct Limits {
    pub(super) depth: usize,
    pub(super) nodes: usize,
    pub(super) alias_nodes: usize,
}

impl Limits {
    /// For a text that was read within limits before.
    pub(crate) fn none() -> Self {
        Self {
            depth: DEPTH_CEILING,
            nodes: usize::MAX,
            alias_nodes: 0,
        }
    }

    /// Refuses a list or map that is the `depth`th from the root.
    pub(crate) fn check_depth(&self, depth: usize, at: Span) -> Result<(), YamlError> {
        if depth > self.depth {
            let message = format!("nested deeper than {} levels", self.depth);
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }
}

/// What of the limits is spent.
#[derive(Default)]
pub(crate) struct Budget {
    nodes: usize,
    copied: Weight,
    kept: Weight,
}

/// What a node takes, with everything in it.
#[derive(Clone, Copy, Default)]
pub(super) struct Weight {
    nodes: usize,
    /// Bytes of keys and scalars.
    text: usize,
}

impl Weight {
    fn add(&mut self, more: Self) {
        self.nodes = self.nodes.saturating_add(more.nodes);
        self.text = self.text.saturating_add(more.text);
    }
}

impl Budget {
    /// Spends one node.
    pub(crate) fn node(&mut self, limits: &Limits, at: Span) -> Result<(), YamlError> {
        self.nodes += 1;
        if self.nodes > limits.nodes {
            let message = format!("more than {} values", limits.nodes);
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }

    /// Spends what an alias copies.
    pub(super) fn copies(
        &mut self,
        weight: Weight,
        limits: &Limits,
        at: Span,
    ) -> Result<(), YamlError> {
        self.copied.add(weight);
        self.nodes = self.nodes.saturating_add(weight.nodes);
        if self.copied.nodes > limits.alias_nodes || self.nodes > limits.nodes {
            let message = format!("aliases expand to more than {} values", limits.alias_nodes);
            return Err(YamlError::new(at, message));
        }
        if self.copied.text > ALIAS_TEXT_LIMIT {
            let message = format!("aliases expand to more than {ALIAS_TEXT_LIMIT} bytes of text");
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }

    /// Spends what is kept for an anchor.
    pub(super) fn keeps(
        &mut self,
        weight: Weight,
        limits: &Limits,
        at: Span,
    ) -> Result<(), YamlError> {
        self.kept.add(weight);
        if self.kept.nodes > limits.alias_nodes {
            let message = format!("anchors hold more than {} values", limits.alias_nodes);
            return Err(YamlError::new(at, message));
        }
        if self.kept.text > ALIAS_TEXT_LIMIT {
            let message = format!("anchors hold more than {ALIAS_TEXT_LIMIT} bytes of text");
            return Err(YamlError::new(at, message));
        }
        Ok(())
    }
}

/// Number of nodes and depth in lists and maps; recursion is bounded by [`DEPTH_CEILING`].
pub(super) fn measure(node: &Node) -> (Weight, usize) {
    let mut weight = Weight { nodes: 1, text: 0 };
    let mut depth = 0;
    let mut children: Vec<&Node> = Vec::new();
    match &node.value {
        Value::String(text) => weight.text = text.len(),
        Value::List(items) => {
            depth = 1;
            children.extend(items);
        }
        Value::Map(map) => {
            depth = 1;
            weight.text = map.keys().map(String::len).sum();
            children.extend(map.values().map(|member| &member.node));
        }
        _ => {}
    }
    for child in children {
        let (more, below) = measure(child);
        weight.add(more);
        depth = depth.max(below + 1);
    }
    (weight, depth)
}
