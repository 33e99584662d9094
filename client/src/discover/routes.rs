//! Which route a destination takes: the longest matching domain wins.

use std::collections::HashMap;

use crate::config::{Pattern, Route};

/// The routes, found by suffix.
#[derive(Debug)]
pub(crate) struct Table {
    routes: Vec<Route>,
    exact: HashMap<String, usize>,
    below: HashMap<String, usize>,
    any: Option<usize>,
}

impl Table {
    pub(crate) fn new(routes: Vec<Route>) -> Self {
        let (mut exact, mut below, mut any) = (HashMap::new(), HashMap::new(), None);
        for (index, route) in routes.iter().enumerate() {
            match &route.pattern {
                Pattern::Domain(domain) => {
                    exact.insert(domain.clone(), index);
                }
                Pattern::Below(domain) => {
                    below.insert(domain.clone(), index);
                }
                Pattern::Any => any = Some(index),
            }
        }
        Self {
            routes,
            exact,
            below,
            any,
        }
    }

    /// The route for a destination (lower case, A-labels).
    pub(crate) fn find(&self, destination: &str) -> Option<&Route> {
        let index = self
            .exact
            .get(destination)
            .or_else(|| {
                // An address literal has no domain above it.
                if destination.starts_with('[') {
                    return None;
                }
                let parents =
                    std::iter::successors(destination.split_once('.'), |(_, rest)| rest.split_once('.'));
                parents.into_iter().find_map(|(_, parent)| self.below.get(parent))
            })
            .copied()
            .or(self.any)?;
        self.routes.get(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_domain_wins() {
        let route = |text: &str| Route {
            pattern: Pattern::parse(text).unwrap(),
            path: text.to_owned(),
            gateways: Vec::new(),
            targets: Vec::new(),
            recipients: None,
        };
        let some = Table::new(
            [
                "moon.example",
                "*.moon.example",
                "*.far.moon.example",
                "x.far.moon.example",
            ]
            .map(route)
            .into(),
        );
        let all = Table::new(["*.moon.example", "*"].map(route).into());
        for (destination, expected, with_any) in [
            ("moon.example", Some("moon.example"), "*"),
            ("a.moon.example", Some("*.moon.example"), "*.moon.example"),
            ("a.b.moon.example", Some("*.moon.example"), "*.moon.example"),
            ("far.moon.example", Some("*.moon.example"), "*.moon.example"),
            ("a.far.moon.example", Some("*.far.moon.example"), "*.moon.example"),
            ("x.far.moon.example", Some("x.far.moon.example"), "*.moon.example"),
            ("notmoon.example", None, "*"),
            ("example", None, "*"),
            ("[127.0.0.1]", None, "*"),
        ] {
            let found = some.find(destination).map(|route| route.path.as_str());
            assert_eq!(found, expected, "{destination}");
            assert_eq!(all.find(destination).unwrap().path, with_any, "{destination}");
        }
    }
}
