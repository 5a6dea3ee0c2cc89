//! The contents of the fake Slack: organisations, workspaces, people and the app.

use std::collections::BTreeMap;

use thiserror::Error;
use url::Url;

use crate::clock::Clock;
use crate::installation::Scopes;
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

/// The initial contents of a [`FakeSlack`](super::FakeSlack).
///
/// [`World::default`] has one workspace, `T0ALPHA0001` "Alpha Robotics", with one admin,
/// `U0ADMIN0001` "ada". [`World::empty`] has no workspace and no person, so you add your own:
///
/// ```
/// use slack_installs::testing::{Org, Person, Workspace, World};
///
/// let world = World::empty()
///     .with_workspace(
///         Workspace::new("T0ALPHA0001", "Alpha Robotics")
///             .with_person(Person::admin("U0ADMIN0001", "ada"))
///             .with_person(Person::guest("U0GUEST0003", "gus")),
///     )
///     .with_org(
///         Org::new("E0GRID00001", "Gridline Org")
///             .with_workspace(Workspace::new("T0GRID00011", "Gridline Sales"))
///             .with_workspace(Workspace::new("T0GRID00012", "Gridline Support"))
///             .with_person(Person::org_admin("W0ORGADM001", "olga")),
///     )
///     .with_redirect_url("https://app.example.com/slack/oauth_redirect");
/// ```
#[derive(Clone, Debug)]
pub struct World {
    pub(super) added_scopes: Scopes,
    pub(super) app_name: String,
    pub(super) clock: Clock,
    pub(super) redirect_urls: Vec<Url>,
    pub(super) seed: Option<u64>,
    orgs: BTreeMap<EnterpriseId, Place>,
    people: BTreeMap<UserId, Resident>,
    workspaces: BTreeMap<TeamId, Place>,
}

/// The name of a workspace or an organisation, and the label in its web address.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) domain: String,
    pub(super) name: String,
    /// The organisation of a workspace.
    pub(super) org: Option<EnterpriseId>,
}

/// A person and their workspaces, in the order in which they joined.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) person: Person,
    pub(super) teams: Vec<TeamId>,
}

impl World {
    /// Creates a world with the app, and without workspaces and people.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            added_scopes: Scopes::default(),
            app_name: "Fake App".to_owned(),
            clock: Clock::default(),
            redirect_urls: Vec::new(),
            seed: None,
            orgs: BTreeMap::new(),
            people: BTreeMap::new(),
            workspaces: BTreeMap::new(),
        }
    }

    /// Sets the app's name, which the authorize page shows.
    #[must_use]
    pub fn with_app_name(mut self, name: impl Into<String>) -> Self {
        self.app_name = name.into();
        self
    }

    /// Sets the fake's clock. [`FakeSlack::advance`] moves the fake's time ahead of this clock.
    ///
    /// [`FakeSlack::advance`]: super::FakeSlack::advance
    #[must_use]
    pub fn with_clock(self, clock: Clock) -> Self {
        Self { clock, ..self }
    }

    /// Adds an organisation, with its workspaces and people.
    #[must_use]
    pub fn with_org(mut self, org: Org) -> Self {
        self.add_org(org);
        self
    }

    /// Adds a redirect URL to the app's configuration.
    ///
    /// If none is configured, every `https` URL and every loopback URL is allowed. Otherwise only
    /// the configured URLs and their sub-paths are allowed. The first one is the default for an
    /// authorize URL without a `redirect_uri`.
    ///
    /// # Panics
    ///
    /// Panics if the text is not a URL.
    #[must_use]
    pub fn with_redirect_url(mut self, url: &str) -> Self {
        let url = Url::parse(url).expect("a redirect URL is an absolute URL");
        self.redirect_urls.push(url);
        self
    }

    /// Adds scopes to those that the fake knows, for example one that Slack introduced lately.
    ///
    /// The fake refuses a scope that Slack does not have, and a bot's scope that Slack grants only
    /// to users. Its list is kept by hand, so it can be behind Slack's.
    ///
    /// ```
    /// use slack_installs::testing::{FakeSlack, World};
    ///
    /// let fake = FakeSlack::in_process(World::default().with_scopes("tomorrow:read"));
    /// # let _ = fake;
    /// ```
    #[must_use]
    pub fn with_scopes(self, scopes: impl Into<Scopes>) -> Self {
        let scopes = scopes.into();
        let all = self.added_scopes.iter().chain(scopes.iter()).collect();
        Self {
            added_scopes: all,
            ..self
        }
    }

    /// Derives every id and secret from this seed, so that a run can be repeated exactly.
    ///
    /// Without a seed, they are random.
    #[must_use]
    pub fn with_seed(mut self, seed: u64) -> Self {
        self.seed = Some(seed);
        self
    }

    /// Adds a workspace, with its people.
    #[must_use]
    pub fn with_workspace(mut self, workspace: Workspace) -> Self {
        self.add_workspace(workspace, None);
        self
    }

    pub(super) fn add_org(&mut self, org: Org) {
        let teams: Vec<_> = org.workspaces.iter().map(|w| w.id.clone()).collect();
        for workspace in org.workspaces {
            self.add_workspace(workspace, Some(org.id.clone()));
        }
        for person in org.people {
            self.add_person(person, &teams);
        }
        self.orgs.insert(org.id, Place::new(org.name, None));
    }

    pub(super) fn add_person(&mut self, person: Person, teams: &[TeamId]) {
        let resident = self.people.entry(person.id.clone());
        let resident = resident.or_insert_with(|| Resident {
            person: person.clone(),
            teams: Vec::new(),
        });
        resident.person = person;
        for team in teams {
            if !resident.teams.contains(team) {
                resident.teams.push(team.clone());
            }
        }
    }

    pub(super) fn add_workspace(&mut self, workspace: Workspace, org: Option<EnterpriseId>) {
        let place = Place::new(workspace.name, org);
        self.workspaces.insert(workspace.id.clone(), place);
        for person in workspace.people {
            self.add_person(person, std::slice::from_ref(&workspace.id));
        }
    }

    /// Returns the tenant in which this person installs the app.
    ///
    /// # Errors
    ///
    /// Returns [`ConsentError::NotAllowed`] if the person may not install it there.
    pub(super) fn place(&self, who: &Who) -> Result<InstallationKey, ConsentError> {
        let resident = self.people.get(&who.user).filter(|r| r.person.is_active());
        let resident = resident.ok_or(ConsentError::NotAllowed)?;
        let options = self.options(resident);
        let wanted = match &who.place {
            Some(place) => options.into_iter().find(|key| key.id() == place),
            None => options.into_iter().next(),
        };
        wanted.ok_or(ConsentError::NotAllowed)
    }

    /// Returns every person who may install the app, with each tenant in which they may.
    pub(super) fn choices(&self) -> impl Iterator<Item = (&Person, InstallationKey)> {
        let active = self.people.values().filter(|r| r.person.is_active());
        active.flat_map(|resident| {
            let places = self.options(resident).into_iter();
            places.map(|place| (&resident.person, place))
        })
    }

    pub(super) fn join_org(&mut self, team: &TeamId, org: &EnterpriseId) {
        assert!(
            self.orgs.contains_key(org),
            "no organisation {org} in this world: add it with `World::with_org`"
        );
        let workspace = self.workspaces.get_mut(team);
        let workspace =
            workspace.unwrap_or_else(|| panic!("no workspace {team} in this world: add it first"));
        workspace.org = Some(org.clone());
    }

    /// Returns the name and address of a tenant.
    pub(super) fn named(&self, key: &InstallationKey) -> Option<&Place> {
        match (key.team(), key.enterprise()) {
            (Some(team), _) => self.workspaces.get(team),
            (None, org) => org.and_then(|org| self.orgs.get(org)),
        }
    }

    /// Returns the organisation of a workspace; for an org-wide tenant, the organisation itself.
    pub(super) fn org_of(&self, key: &InstallationKey) -> Option<(EnterpriseId, &Place)> {
        let org = match key.team() {
            Some(team) => self.workspaces.get(team)?.org.as_ref(),
            None => key.enterprise(),
        };
        org.and_then(|org| Some((org.clone(), self.orgs.get(org)?)))
    }

    pub(super) fn resident(&self, user: &UserId) -> Option<&Resident> {
        self.people.get(user)
    }

    /// Returns whether this person is in the tenant, and so visible to its members.
    pub(super) fn sees(&self, key: &InstallationKey, resident: &Resident) -> bool {
        resident.teams.iter().any(|team| match key.team() {
            Some(own) => own == team,
            None => self
                .workspaces
                .get(team)
                .is_some_and(|w| w.org.as_ref() == key.enterprise()),
        })
    }

    /// Returns the tenants in which a person may install the app: their workspaces, and then, for
    /// an organisation's admin or owner, the organisations of these workspaces.
    fn options(&self, resident: &Resident) -> Vec<InstallationKey> {
        let workspaces = resident
            .teams
            .iter()
            .cloned()
            .map(InstallationKey::workspace);
        let orgs = resident
            .teams
            .iter()
            .filter_map(|team| self.workspaces.get(team)?.org.clone());
        let orgs = orgs.filter(|_| resident.person.is_org_admin || resident.person.is_org_owner);
        let mut options: Vec<_> = workspaces.collect();
        for org in orgs.map(InstallationKey::org) {
            if !options.contains(&org) {
                options.push(org);
            }
        }
        options
    }
}

impl Default for World {
    fn default() -> Self {
        let ada = Person::admin("U0ADMIN0001", "ada");
        Self::empty()
            .with_workspace(Workspace::new("T0ALPHA0001", "Alpha Robotics").with_person(ada))
    }
}

impl Place {
    fn new(name: String, org: Option<EnterpriseId>) -> Self {
        let letters = name
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' });
        let domain = letters.collect::<String>().to_ascii_lowercase();
        Self { domain, name, org }
    }
}

/// An Enterprise organisation for a [`World`].
#[derive(Clone, Debug)]
pub struct Org {
    id: EnterpriseId,
    name: String,
    people: Vec<Person>,
    workspaces: Vec<Workspace>,
}

impl Org {
    /// Creates an organisation with this id, `E…`, and without workspaces.
    ///
    /// # Panics
    ///
    /// Panics if the id has another form.
    #[must_use]
    pub fn new(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: EnterpriseId::new(id).expect("an organisation's id has the form `E…`"),
            name: name.into(),
            people: Vec::new(),
            workspaces: Vec::new(),
        }
    }

    /// Adds a person to all workspaces of the organisation.
    #[must_use]
    pub fn with_person(mut self, person: Person) -> Self {
        self.people.push(person);
        self
    }

    /// Adds a workspace, with its people.
    #[must_use]
    pub fn with_workspace(mut self, workspace: Workspace) -> Self {
        self.workspaces.push(workspace);
        self
    }
}

/// A workspace for a [`World`].
#[derive(Clone, Debug)]
pub struct Workspace {
    id: TeamId,
    name: String,
    people: Vec<Person>,
}

impl Workspace {
    /// Creates a workspace with this id, `T…`, and without people.
    ///
    /// # Panics
    ///
    /// Panics if the id has another form.
    #[must_use]
    pub fn new(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: TeamId::new(id).expect("a workspace's id has the form `T…`"),
            name: name.into(),
            people: Vec::new(),
        }
    }

    /// Adds a person.
    ///
    /// A person in several workspaces has one set of flags: those that were added last.
    #[must_use]
    pub fn with_person(mut self, person: Person) -> Self {
        self.people.push(person);
        self
    }
}

/// A person, with the flags that `users.info` shows.
///
/// The constructors create the usual kinds of people. Set fields for other kinds.
///
/// ```
/// use slack_installs::testing::Person;
///
/// let mut olga = Person::org_admin("W0ORGADM001", "olga");
/// olga.is_admin = true; // also an admin of her workspaces
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Person {
    /// The person's id, `U…` or `W…`.
    pub id: UserId,
    /// The person's name.
    pub name: String,
    /// Whether the person is deactivated. They cannot install the app then, and `users.info` omits
    /// most flags.
    pub deleted: bool,
    /// The workspace of a person from another company, who is visible only in a shared channel.
    pub home: Option<TeamId>,
    /// Whether the person is an admin of the workspace.
    pub is_admin: bool,
    /// Whether the person is an admin of the organisation, and may install the app org-wide.
    pub is_org_admin: bool,
    /// Whether the person is an owner of the organisation, and may install the app org-wide.
    pub is_org_owner: bool,
    /// Whether the person is an owner of the workspace.
    pub is_owner: bool,
    /// Whether the person is the primary owner of the workspace.
    pub is_primary_owner: bool,
    /// Whether the person is a guest.
    pub is_restricted: bool,
    /// Whether the person is a single-channel guest.
    pub is_ultra_restricted: bool,
}

impl Person {
    /// Creates a workspace's admin.
    ///
    /// # Panics
    ///
    /// Panics if the id is not a user id. The other constructors do the same.
    #[must_use]
    pub fn admin(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_admin: true,
            ..Self::member(id, name)
        }
    }

    /// Creates a deactivated person.
    #[must_use]
    pub fn deactivated(id: &str, name: impl Into<String>) -> Self {
        Self {
            deleted: true,
            ..Self::member(id, name)
        }
    }

    /// Creates a single-channel guest.
    #[must_use]
    pub fn guest(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_restricted: true,
            is_ultra_restricted: true,
            ..Self::member(id, name)
        }
    }

    /// Creates a member without admin rights.
    #[must_use]
    pub fn member(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: UserId::new(id).expect("a user id has the form `U…` or `W…`"),
            name: name.into(),
            deleted: false,
            home: None,
            is_admin: false,
            is_org_admin: false,
            is_org_owner: false,
            is_owner: false,
            is_primary_owner: false,
            is_restricted: false,
            is_ultra_restricted: false,
        }
    }

    /// Creates an admin of the organisation, who is a plain member of its workspaces.
    #[must_use]
    pub fn org_admin(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_org_admin: true,
            ..Self::member(id, name)
        }
    }

    /// Creates an owner of a workspace, who is also its admin.
    #[must_use]
    pub fn owner(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_owner: true,
            ..Self::admin(id, name)
        }
    }

    /// Creates a person from another company's workspace, `home` (`T…`).
    ///
    /// They are visible through a shared channel, and cannot install the app.
    #[must_use]
    pub fn stranger(id: &str, name: impl Into<String>, home: &str) -> Self {
        Self {
            home: Some(TeamId::new(home).expect("a workspace's id has the form `T…`")),
            ..Self::member(id, name)
        }
    }

    fn is_active(&self) -> bool {
        !self.deleted && self.home.is_none()
    }
}

/// The person who acts, and the place.
///
/// If only a user id is given, the place is that person's first workspace.
///
/// ```
/// use slack_installs::testing::Who;
///
/// let ada: Who = "U0ADMIN0001".into();
/// let olga = Who::user("W0ORGADM001").at("E0GRID00001");
/// ```
#[derive(Clone, Debug)]
pub struct Who {
    pub(super) user: UserId,
    pub(super) place: Option<String>,
}

impl Who {
    /// Creates a person who acts in their first workspace.
    ///
    /// # Panics
    ///
    /// Panics if the text is not a user id.
    #[must_use]
    pub fn user(id: &str) -> Self {
        Self {
            user: UserId::new(id).expect("a user id has the form `U…` or `W…`"),
            place: None,
        }
    }

    /// Sets the place: a workspace, `T…`, or a whole organisation, `E…`.
    #[must_use]
    pub fn at(mut self, place: impl Into<String>) -> Self {
        self.place = Some(place.into());
        self
    }
}

impl From<&str> for Who {
    fn from(user: &str) -> Self {
        Self::user(user)
    }
}

impl From<&UserId> for Who {
    fn from(user: &UserId) -> Self {
        Self {
            user: user.clone(),
            place: None,
        }
    }
}

/// Why the installation was not allowed.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[non_exhaustive]
pub enum ConsentError {
    /// The person may not install the app there.
    ///
    /// They do not exist, are deactivated, are from another company, are not in that workspace, or
    /// are not an admin or owner of that organisation.
    #[error(
        "this person may not install the app there: not an active member of the workspace, or not \
         an admin of the organisation"
    )]
    NotAllowed,
    /// Slack shows this error code on its own page, and does not redirect the browser.
    #[error("the authorize page shows the error {0}: check the app's authorize URL")]
    Refused(&'static str),
}
