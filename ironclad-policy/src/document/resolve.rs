//! From a document to a policy: what it names is read.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use ironclad_core::Cidr;

use super::check::{steps, unknown};
use super::fault::Fault;
use super::place::Step;
use super::problem::{NameKind, Problem};
use super::sockets::{
    DocumentExe, DocumentRule, DocumentRuleLimit, DocumentRuleSubject, DocumentSubject,
};
use super::sources::{Accounts, EtcAccounts, NoFeed, Sources};
use super::values::{DocumentAccount, DocumentTo};
use super::{Document, DocumentError};
use crate::compile::CompiledPolicy;
use crate::country::{CountryCode, CountryLists};
use crate::error::{Failure, PolicyError};
use crate::list::{AddressList, BadLines, ListError, ListOptions};
use crate::policy::{AddressSet, Locate, Policy};
use crate::socket::{AddressGroup, Direction, RateLimit, SocketRule, Subject};

/// Where addresses may be named, whatever has the name.
struct Named<'a> {
    steps: Vec<Step>,
    name: &'a str,
    cidrs: &'a [Cidr],
    lists: &'a [std::path::PathBuf],
    countries: &'a [CountryCode],
    feeds: &'a [String],
    bad_lines: BadLines,
}

impl Document {
    /// Reads the lists, whose paths begin at `folder`, and describes the policy. There are no
    /// feeds, and accounts are those of `/etc`.
    ///
    /// # Errors
    /// Those of [`policy_from`](Self::policy_from).
    pub fn policy(&self, folder: &Path) -> Result<Policy, DocumentError> {
        self.policy_from(&mut Sources::new(folder))
    }

    /// Reads what the document names, and describes the policy. What its
    /// [`compile`](Policy::compile) refuses has its place in the file, too.
    ///
    /// # Errors
    /// [`Problem::List`], [`Problem::Country`] and [`Problem::Feed`] where addresses cannot be had,
    /// [`Problem::UnknownName`] of a feed, country, user or group.
    pub fn policy_from(&self, sources: &mut Sources<'_>) -> Result<Policy, DocumentError> {
        let countries = self.country_lists(&sources.folder)?;
        let mut feeds = BTreeMap::new();
        let mut policy = Policy::builder()
            .default_action(self.default)
            .malformed(self.malformed)
            .non_ip(self.non_ip)
            .neighbour_discovery(self.neighbour_discovery)
            .dry_run(self.dry_run)
            .default_events_per_second(self.events_per_second)
            .backend(self.backend.into())
            .gateways(self.gateways.iter().copied())
            .limits(self.policy_limits.limits())
            .socket_default(Direction::Out, self.socket_defaults.out)
            .socket_default(Direction::In, self.socket_defaults.in_)
            .socket_default(Direction::Create, self.socket_defaults.create)
            .danger_packet_sockets_unseen(self.danger_packet_sockets_unseen);

        let mut groups = BTreeMap::new();
        for (name, addresses) in &self.addresses {
            let named = Named {
                steps: steps!["addresses", name.as_str()].into(),
                name,
                cidrs: &addresses.cidrs,
                lists: &addresses.lists,
                countries: &addresses.countries,
                feeds: &addresses.feeds,
                bad_lines: addresses.bad_lines,
            };
            groups.insert(name.as_str(), self.lists(&named, sources, &countries, &mut feeds)?);
        }
        for (i, set) in self.sets.iter().enumerate() {
            let named = Named {
                steps: steps!["sets", i].into(),
                name: &set.name,
                cidrs: &set.cidrs,
                lists: &set.lists,
                countries: &set.countries,
                feeds: &set.feeds,
                bad_lines: set.bad_lines,
            };
            let own = self.lists(&named, sources, &countries, &mut feeds)?;
            let by_name = set.addresses.iter().filter_map(|name| groups.get(name.as_str()));
            let lists = own.into_iter().chain(by_name.flatten().cloned());
            let empty = AddressSet::new(set.id, set.name.clone(), set.action)
                .events_per_second(set.events_per_second);
            policy = policy.set(lists.fold(empty, AddressSet::list));
        }
        policy = self.tuples.iter().fold(policy, |policy, tuple| policy.tuple(tuple.rule()));

        for (name, lists) in groups {
            // A group that no rule names is not compiled.
            let is_used = |to: &DocumentTo| matches!(to, DocumentTo::Name(named) if named == name);
            if self.rules.iter().flat_map(|rule| &rule.to).any(is_used) {
                let empty = AddressGroup::new(name);
                policy = policy.addresses(lists.into_iter().fold(empty, AddressGroup::list));
            }
        }
        let etc = EtcAccounts::default();
        let accounts = sources.accounts.unwrap_or(&etc);
        let mut subjects = BTreeMap::new();
        for (name, subject) in &self.subjects {
            let steps = steps!["subjects", name.as_str()];
            subjects.insert(name.as_str(), self.subject(name, subject, &steps, accounts)?);
        }
        for (i, rule) in self.rules.iter().enumerate() {
            let mut described = self.socket_rule(rule);
            match &rule.subject {
                Some(DocumentRuleSubject::Name(name)) => {
                    let subject = subjects.get(name.as_str()).cloned();
                    described = described.subject(subject.unwrap_or_default());
                }
                Some(DocumentRuleSubject::Inline(subject)) => {
                    // A name of its own: what is counted by subject is not counted together.
                    let name = format!("rule {}", rule.id);
                    let steps = steps!["rules", i, "subject"];
                    described = described.subject(self.subject(&name, subject, &steps, accounts)?);
                }
                None => {}
            }
            described.described_at = self.place_of("rules", i);
            policy = policy.socket_rule(described);
        }
        for (i, rule) in self.files.iter().enumerate() {
            let mut described = rule.rule(self.dry_run);
            described.described_at = self.place_of("files", i);
            policy = policy.file_rule(described);
        }
        let document = self.clone();
        policy.locate = Some(Locate(Arc::new(move |error: PolicyError| {
            error.located(|error| Box::new(document.locate(error)))
        })));
        Ok(policy)
    }

    /// Reads what the document names, and compiles the policy.
    ///
    /// # Errors
    /// Those of [`policy_from`](Self::policy_from), and [`Problem::Policy`] at the place of the rule.
    pub fn compile(&self, sources: &mut Sources<'_>) -> Result<CompiledPolicy, DocumentError> {
        self.policy_from(sources)?.compile().map_err(|error| match error.into_failure() {
            Failure::Located { error, .. } => match error.downcast() {
                Ok(located) => *located,
                Err(other) => DocumentError::new(&self.source.file, Fault::value(other)),
            },
            failure => self.locate(failure.into()),
        })
    }

    fn socket_rule(&self, rule: &DocumentRule) -> SocketRule {
        let mut described = SocketRule::new(rule.id, rule.name.clone(), rule.action)
            .direction(rule.direction)
            .report(rule.report)
            .dry_run(rule.dry_run)
            .events_per_second(rule.events_per_second);
        for to in &rule.to {
            described = match to {
                DocumentTo::Cidr(cidr) => described.to_cidr(*cidr),
                DocumentTo::Name(name) => described.to(name),
            };
        }
        described = rule.ports.iter().fold(described, |rule, ports| rule.ports(ports.0.clone()));
        described = rule.protocol.iter().fold(described, |rule, &p| rule.protocol(p));
        let limit: Option<RateLimit> = match &rule.limit {
            Some(DocumentRuleLimit::Name(name)) => {
                self.limits.get(name).map(|limit| limit.limit(name))
            }
            Some(DocumentRuleLimit::Inline(limit)) => Some(limit.limit("")),
            None => None,
        };
        match limit {
            Some(limit) => described.limit(limit),
            None => described,
        }
    }

    fn subject(
        &self,
        name: &str,
        subject: &DocumentSubject,
        steps: &[Step],
        accounts: &dyn Accounts,
    ) -> Result<Subject, DocumentError> {
        let mut described = Subject::new(name);
        for exe in &subject.exe {
            described = match exe {
                DocumentExe::Path(path) => described.exe(path),
                DocumentExe::Pinned(pinned) => described.exe_sha256(&pinned.path, pinned.sha256),
            };
        }
        described = subject.parent.iter().fold(described, Subject::parent);
        described = subject.descendant_of.iter().fold(described, Subject::descendant_of);
        described = subject.cgroup.iter().fold(described, Subject::cgroup);
        described = subject.container.iter().fold(described, Subject::container);
        described = subject.spoofable_comm.iter().fold(described, Subject::spoofable_comm);
        let refuse = |key: &str, index: usize, fault| {
            self.refuse(steps.iter().cloned().chain(steps![key, index]), fault)
        };
        for (i, user) in subject.uid.iter().enumerate() {
            let uid = number(user, NameKind::User, accounts);
            described = described.uid(uid.map_err(|fault| refuse("uid", i, fault))?);
        }
        for (i, group) in subject.gid.iter().enumerate() {
            let gid = number(group, NameKind::Group, accounts);
            described = described.gid(gid.map_err(|fault| refuse("gid", i, fault))?);
        }
        Ok(described)
    }

    /// The lists of every country that is named, read once.
    fn country_lists(&self, folder: &Path) -> Result<CountryLists, DocumentError> {
        let of_addresses = self.addresses.values().flat_map(|addresses| &addresses.countries);
        let of_sets = self.sets.iter().flat_map(|set| &set.countries);
        let codes: BTreeSet<CountryCode> = of_addresses.chain(of_sets).copied().collect();
        let Some(countries) = self.countries.as_ref().filter(|_| !codes.is_empty()) else {
            return Ok(CountryLists::default());
        };
        let options = self.list_limits.options().bad_lines(countries.bad_lines);
        let failed = |error| Fault::new(Problem::Country(error));
        match &countries.database {
            None => {
                let folders: Vec<_> =
                    countries.folders.iter().map(|path| folder.join(path)).collect();
                CountryLists::from_folders(&folders, &codes, &options)
                    .map_err(|error| self.refuse(steps!["countries", "folders"], failed(error)))
            }
            #[cfg(feature = "maxmind")]
            Some(path) => CountryLists::from_database(&folder.join(path), &codes, &options)
                .map_err(|error| self.refuse(steps!["countries", "database"], failed(error))),
            #[cfg(not(feature = "maxmind"))]
            Some(_) => {
                let what = "this program was built without the feature `maxmind`: say `folders`";
                Err(self.refuse(steps!["countries", "database"], Fault::value(what)))
            }
        }
    }

    fn lists(
        &self,
        named: &Named<'_>,
        sources: &mut Sources<'_>,
        countries: &CountryLists,
        feeds: &mut BTreeMap<String, AddressList>,
    ) -> Result<Vec<AddressList>, DocumentError> {
        let refuse = |key: &str, index: usize, fault| {
            self.refuse(named.steps.iter().cloned().chain(steps![key, index]), fault)
        };
        let mut lists = Vec::new();
        if !named.cidrs.is_empty() {
            lists.push(AddressList::from_cidrs(named.name, named.cidrs.iter().copied()));
        }
        let options = self.list_limits.options().bad_lines(named.bad_lines);
        for (i, path) in named.lists.iter().enumerate() {
            let read = read_lists(&sources.folder.join(path), &options);
            lists.extend(read.map_err(|e| refuse("lists", i, Fault::new(Problem::List(e))))?);
        }
        for (i, code) in named.countries.iter().enumerate() {
            let Some(of_country) = countries.get(*code) else {
                let known: Vec<String> = countries.known().map(|code| code.to_string()).collect();
                let fault = match code.usual_mistake() {
                    Some(meant) => {
                        unknown(NameKind::Country, code.as_str(), []).suggest(Some(meant))
                    }
                    None => {
                        unknown(NameKind::Country, code.as_str(), known.iter().map(String::as_str))
                    }
                };
                return Err(refuse("countries", i, fault));
            };
            lists.extend(of_country.iter().cloned());
        }
        for (i, name) in named.feeds.iter().enumerate() {
            if !feeds.contains_key(name) {
                let list = self.feed(name, sources).map_err(|fault| refuse("feeds", i, fault))?;
                feeds.insert(name.clone(), list);
            }
            lists.extend(feeds.get(name).cloned());
        }
        Ok(lists)
    }

    fn feed(&self, name: &str, sources: &mut Sources<'_>) -> Result<AddressList, Fault> {
        let failed = |why: &str| {
            let name = super::text::shown(name);
            Fault::new(Problem::Feed { name, why: why.to_owned() })
        };
        let Some(feeds) = &mut sources.feeds else {
            return Err(failed("the program that reads this file has no feeds"));
        };
        feeds.addresses(name).map_err(|error| match error {
            NoFeed::Unknown if self.feeds.contains_key(name) => {
                failed("the program that reads this file does not have the feeds that it declares")
            }
            NoFeed::Unknown => {
                unknown(NameKind::Feed, name, feeds.names().iter().map(String::as_str))
            }
            NoFeed::Unavailable(why) => failed(&why),
        })
    }
}

fn number(
    account: &DocumentAccount,
    kind: NameKind,
    accounts: &dyn Accounts,
) -> Result<u32, Fault> {
    let name = match account {
        DocumentAccount::Id(id) => return Ok(*id),
        DocumentAccount::Name(name) => name,
    };
    let found = match kind {
        NameKind::Group => accounts.gid(name),
        _ => accounts.uid(name),
    };
    let found = found.map_err(|error| {
        let name = super::text::shown(name);
        Fault::value(format_args!("{kind} `{name}`: {error}: write the number"))
    })?;
    found.ok_or_else(|| {
        let known = match kind {
            NameKind::Group => accounts.groups(),
            _ => accounts.users(),
        };
        unknown(kind, name, known.iter().map(String::as_str))
    })
}

/// A list, or those of a folder.
fn read_lists(path: &Path, options: &ListOptions) -> Result<Vec<AddressList>, ListError> {
    if !path.is_dir() {
        return Ok(vec![AddressList::read(path, options)?]);
    }
    let (mut lists, mut none) = (Vec::new(), None);
    for extension in ["cidr", "txt", "ipset", "netset"] {
        match AddressList::read_dir(path, extension, options) {
            Ok(read) => lists.extend(read),
            Err(e @ ListError::NoLists { .. }) => none = Some(e),
            Err(e) => return Err(e),
        }
    }
    match none.filter(|_| lists.is_empty()) {
        Some(none) => Err(none),
        None => Ok(lists),
    }
}
