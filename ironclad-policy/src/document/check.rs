//! What a document says of itself: names that it defines and uses, and what contradicts itself.

use std::collections::{BTreeMap, HashMap};

use super::fault::Fault;
use super::place::{Place, Step};
use super::problem::{NameKind, Problem};
use super::sockets::{DocumentRuleLimit, DocumentRuleSubject};
use super::text::nearest;
use super::text::shown;
use super::tree::Tree;
use super::values::{DocumentTo, is_address};
use super::{Document, DocumentError};
use crate::country::CountryCode;
use crate::error::{Failure, PolicyError};
use crate::socket::LimitScope;
use ironclad_core::{GatewayError, RuleId};

/// The steps to a place, made where something is wrong with it.
macro_rules! steps {
    ($($step:expr),*) => { [$(Step::from($step)),*] };
}
pub(super) use steps;

impl Document {
    /// The error at the place that the steps lead to.
    pub(super) fn refuse(
        &self,
        steps: impl IntoIterator<Item = Step>,
        fault: Fault,
    ) -> DocumentError {
        let fault = match &self.source.tree {
            Some(tree) => {
                let (place, path) = tree.find(steps);
                fault.at(place, || path)
            }
            None => fault,
        };
        DocumentError::new(&self.source.file, fault)
    }

    /// `rules.yaml:12:5`, of an item of a list.
    pub(super) fn place_of(&self, list: &str, index: usize) -> Option<String> {
        let (Place { line, column }, _) = self.source.tree.as_deref()?.find(steps![list, index]);
        Some(format!("{}:{line}:{column}", self.source.file))
    }

    fn line(&self, steps: impl IntoIterator<Item = Step>) -> u32 {
        self.source.tree.as_deref().map_or(0, |tree: &Tree| tree.find(steps).0.line)
    }

    /// Everything that can be checked without reading another file.
    pub(super) fn check(&self) -> Result<(), DocumentError> {
        self.check_countries()?;
        self.check_feeds()?;
        self.check_names("addresses", &self.addresses)?;
        self.check_names("subjects", &self.subjects)?;
        self.check_names("limits", &self.limits)?;
        for (name, addresses) in &self.addresses {
            if addresses.is_empty() {
                let what = "no addresses: say `cidrs`, `lists`, `countries` or `feeds`";
                return Err(self.refuse(steps!["addresses", name.as_str()], Fault::value(what)));
            }
            self.check_named_countries(
                &addresses.countries,
                steps!["addresses", name.as_str(), "countries"],
            )?;
            for (i, feed) in addresses.feeds.iter().enumerate() {
                self.check_feed(feed, || steps!["addresses", name.as_str(), "feeds", i].into())?;
            }
        }
        for (name, subject) in &self.subjects {
            if subject.is_empty() {
                let what = "it is any process: say which, or leave `subject` out of the rules";
                return Err(self.refuse(steps!["subjects", name.as_str()], Fault::value(what)));
            }
        }
        for (i, set) in self.sets.iter().enumerate() {
            self.check_named_countries(&set.countries, steps!["sets", i, "countries"])?;
            for (j, feed) in set.feeds.iter().enumerate() {
                self.check_feed(feed, || steps!["sets", i, "feeds", j].into())?;
            }
            for (j, name) in set.addresses.iter().enumerate() {
                self.known(NameKind::Addresses, name, &self.addresses)
                    .map_err(|fault| self.refuse(steps!["sets", i, "addresses", j], fault))?;
            }
        }
        self.check_rules()
    }

    /// A file that declares feeds declares all that it names; one that declares none has those of the
    /// program.
    fn check_feed(
        &self,
        name: &str,
        steps: impl FnOnce() -> Vec<Step>,
    ) -> Result<(), DocumentError> {
        match self.feeds.is_empty() {
            true => Ok(()),
            false => self
                .known(NameKind::Feed, name, &self.feeds)
                .map_err(|fault| self.refuse(steps(), fault)),
        }
    }

    fn check_countries(&self) -> Result<(), DocumentError> {
        let Some(countries) = &self.countries else { return Ok(()) };
        let what = match (countries.folders.is_empty(), &countries.database) {
            (true, None) => "say `folders` or `database`",
            (false, Some(_)) => "say `folders` or `database`: they would contradict each other",
            (true, Some(_)) | (false, None) => return Ok(()),
        };
        Err(self.refuse(steps!["countries"], Fault::value(what)))
    }

    fn check_named_countries(
        &self,
        named: &[CountryCode],
        steps: impl IntoIterator<Item = Step>,
    ) -> Result<(), DocumentError> {
        if named.is_empty() || self.countries.is_some() {
            return Ok(());
        }
        let what =
            "the key `countries` at the outermost level has to say where countries come from";
        Err(self.refuse(steps, Fault::value(what)))
    }

    fn check_names<T>(
        &self,
        outer: &str,
        names: &BTreeMap<String, T>,
    ) -> Result<(), DocumentError> {
        for name in names.keys() {
            let is_unfit = name.chars().any(char::is_control)
                || name.trim() != name
                || name.chars().count() > 128;
            let what = if name.is_empty() || is_unfit {
                "is no name: use 1 to 128 characters, none of them a control character"
            } else if is_address(name) {
                "would be read as an address: give it another name"
            } else {
                continue;
            };
            let fault = Fault::value(format_args!("`{}` {what}", shown(name)));
            return Err(self.refuse_key(outer, name, fault));
        }
        Ok(())
    }

    /// The error at a key of an outer mapping.
    pub(super) fn refuse_key(&self, outer: &str, key: &str, fault: Fault) -> DocumentError {
        let place = self.source.tree.as_deref().and_then(|tree| tree.find_key(outer, key));
        let fault = match place {
            Some(place) => fault.at(place, || super::KeyPath(vec![outer.into()])),
            None => fault,
        };
        self.refuse(steps![outer], fault)
    }

    fn known<T>(
        &self,
        kind: NameKind,
        name: &str,
        names: &BTreeMap<String, T>,
    ) -> Result<(), Fault> {
        if names.contains_key(name) {
            return Ok(());
        }
        Err(unknown(kind, name, names.keys().map(String::as_str)))
    }

    fn check_rules(&self) -> Result<(), DocumentError> {
        let mut ids = HashMap::new();
        for (i, rule) in self.rules.iter().enumerate() {
            if let Some(before) = ids.insert(rule.id, i) {
                let first = self.line(steps!["rules", before, "id"]);
                let problem = Problem::IdTwice { id: rule.id.0, first };
                return Err(self.refuse(steps!["rules", i, "id"], Fault::new(problem)));
            }
            match &rule.subject {
                Some(DocumentRuleSubject::Name(name)) => self
                    .known(NameKind::Subject, name, &self.subjects)
                    .map_err(|fault| self.refuse(steps!["rules", i, "subject"], fault))?,
                Some(DocumentRuleSubject::Inline(subject)) if subject.is_empty() => {
                    let what = "it is any process: say which, or leave `subject` out";
                    return Err(self.refuse(steps!["rules", i, "subject"], Fault::value(what)));
                }
                Some(DocumentRuleSubject::Inline(_)) | None => {}
            }
            for (j, to) in rule.to.iter().enumerate() {
                if let DocumentTo::Name(name) = to {
                    self.known(NameKind::Addresses, name, &self.addresses)
                        .map_err(|fault| self.refuse(steps!["rules", i, "to", j], fault))?;
                }
            }
            match &rule.limit {
                Some(DocumentRuleLimit::Name(name)) => self
                    .known(NameKind::Limit, name, &self.limits)
                    .map_err(|fault| self.refuse(steps!["rules", i, "limit"], fault))?,
                Some(DocumentRuleLimit::Inline(limit)) if limit.per != LimitScope::Rule => {
                    let what = "a limit of one rule is shared with no other: give it a name under `limits`";
                    return Err(self.refuse(steps!["rules", i, "limit", "per"], Fault::value(what)));
                }
                Some(DocumentRuleLimit::Inline(_)) | None => {}
            }
        }
        Ok(())
    }

    /// The error of a policy that was made of this document, with the place of the rule.
    pub(crate) fn locate(&self, error: PolicyError) -> DocumentError {
        let steps = match error.failure() {
            Failure::Gateway(GatewayError::NoHost(address)) => {
                self.gateways.iter().position(|it| it == address).map(|index| ("gateways", index))
            }
            _ => self.rule_of(&error),
        };
        let steps =
            steps.map_or_else(Vec::new, |(key, index)| vec![Step::from(key), Step::from(index)]);
        let is_about_all = steps.is_empty();
        let fault = Fault::new(Problem::Policy(error));
        match is_about_all {
            true => DocumentError::new(&self.source.file, fault),
            false => self.refuse(steps, fault),
        }
    }

    /// The rule that an error speaks of.
    fn rule_of(&self, error: &PolicyError) -> Option<(&'static str, usize)> {
        let set = |id, name: &str| {
            let is_it = |set: &super::DocumentSet| set.id == id && set.name == name;
            self.sets.iter().position(is_it).map(|i| ("sets", i))
        };
        let tuple = |id, name: &str| {
            let is_it = |tuple: &super::DocumentTuple| tuple.id == id && tuple.name == name;
            self.tuples.iter().position(is_it).map(|i| ("tuples", i))
        };
        let rule = |id| self.rules.iter().position(|rule| rule.id == id).map(|i| ("rules", i));
        let file = |id, name: &str| {
            self.files
                .iter()
                .position(|rule| rule.id == id && rule.name == name)
                .map(|i| ("files", i))
        };
        let of_name = |id, name: &str| {
            set(id, name)
                .or_else(|| tuple(id, name))
                .or_else(|| rule(id).filter(|(_, i)| self.rules[*i].name == name))
                .or_else(|| file(id, name))
        };
        match error.failure() {
            Failure::RuleName { rule: id, second, .. } => {
                tuple(*id, second).or_else(|| set(*id, second)).or_else(|| file(*id, second))
            }
            Failure::NoId { name } => of_name(RuleId(0), name),
            Failure::EmptySet { rule: id, name } => set(*id, name),
            Failure::UnfitName { rule: id, name } => of_name(*id, name),
            Failure::PortWithoutProtocol { rule: id, name }
            | Failure::MixedFamilies { rule: id, name } => tuple(*id, name),
            Failure::SocketRule { rule: id, .. } | Failure::UnknownGroup { rule: id, .. } => {
                rule(*id)
            }
            Failure::FileRule { rule: id, name, .. } => file(*id, name),
            Failure::GroupTwice { .. }
            | Failure::Located { .. }
            | Failure::Gateway(_)
            | Failure::Limit { .. } => None,
        }
    }
}

pub(super) fn unknown<'a>(
    kind: NameKind,
    name: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Fault {
    let meant = nearest(name, known);
    Fault::new(Problem::UnknownName { kind, name: shown(name) }).suggest(meant)
}
