//! Who exists in the fake Slack: organisations, workspaces, people, and the app.

use std::collections::BTreeMap;

use url::Url;

use crate::clock::Clock;
use crate::tenant::{EnterpriseId, InstallationKey, TeamId, UserId};

use super::ask::ConsentError;

/// What a [`FakeSlack`](super::FakeSlack) starts with.
///
/// [`World::default`] has one workspace, `T0ALPHA0001` "Alpha Robotics", with one admin,
/// `U0ADMIN0001` "ada". [`World::empty`] has nobody:
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
    pub(super) app_name: String,
    pub(super) clock: Clock,
    pub(super) redirect_urls: Vec<Url>,
    pub(super) seed: Option<u64>,
    orgs: BTreeMap<EnterpriseId, Place>,
    people: BTreeMap<UserId, Resident>,
    workspaces: BTreeMap<TeamId, Place>,
}

/// A name, and the label in its web address.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub(super) domain: String,
    pub(super) name: String,
    /// The organisation that a workspace belongs to.
    pub(super) org: Option<EnterpriseId>,
}

/// A person, and the workspaces that they are in, their first one first.
#[derive(Clone, Debug)]
pub(super) struct Resident {
    pub(super) person: Person,
    pub(super) teams: Vec<TeamId>,
}

impl World {
    /// A Slack with the app and nobody to use it.
    #[must_use]
    pub fn empty() -> Self {
        Self {
            app_name: "Fake App".to_owned(),
            clock: Clock::default(),
            redirect_urls: Vec::new(),
            seed: None,
            orgs: BTreeMap::new(),
            people: BTreeMap::new(),
            workspaces: BTreeMap::new(),
        }
    }

    /// Names the app, as the authorize page shows it.
    #[must_use]
    pub fn with_app_name(self, name: impl Into<String>) -> Self {
        Self {
            app_name: name.into(),
            ..self
        }
    }

    /// Sets the clock that the fake starts from; [`FakeSlack::advance`] moves it on.
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

    /// Configures a redirect URL. With none configured every `https` URL, and every loopback URL,
    /// is allowed; with some, only those and their sub-paths, and the first serves a request that
    /// names none.
    ///
    /// # Panics
    ///
    /// If it is not a URL.
    #[must_use]
    pub fn with_redirect_url(mut self, url: &str) -> Self {
        let url = Url::parse(url).expect("a redirect URL of a test is a URL");
        self.redirect_urls.push(url);
        self
    }

    /// Makes every id and secret from this seed, so that a run can be repeated exactly. Without
    /// one they are random.
    #[must_use]
    pub fn with_seed(self, seed: u64) -> Self {
        Self {
            seed: Some(seed),
            ..self
        }
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

    /// Where this person would install: the tenant, if they may.
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

    /// Everybody who may install, with the places where they may.
    pub(super) fn choices(&self) -> impl Iterator<Item = (&Person, InstallationKey)> {
        let active = self.people.values().filter(|r| r.person.is_active());
        active.flat_map(|resident| {
            let places = self.options(resident).into_iter();
            places.map(|place| (&resident.person, place))
        })
    }

    pub(super) fn join_org(&mut self, team: &TeamId, org: &EnterpriseId) {
        assert!(self.orgs.contains_key(org), "no organisation {org}");
        let workspace = self.workspaces.get_mut(team);
        let workspace = workspace.unwrap_or_else(|| panic!("no workspace {team}"));
        workspace.org = Some(org.clone());
    }

    /// The name and address of a tenant.
    pub(super) fn named(&self, key: &InstallationKey) -> Option<&Place> {
        match (key.team(), key.enterprise()) {
            (Some(team), _) => self.workspaces.get(team),
            (None, org) => org.and_then(|org| self.orgs.get(org)),
        }
    }

    /// The organisation that a tenant is in, or is.
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

    /// Whether somebody of this tenant can see this person.
    pub(super) fn sees(&self, key: &InstallationKey, resident: &Resident) -> bool {
        resident.teams.iter().any(|team| match key.team() {
            Some(own) => own == team,
            None => self
                .workspaces
                .get(team)
                .is_some_and(|w| w.org.as_ref() == key.enterprise()),
        })
    }

    /// A person's workspaces, and then, for an admin of one, its organisations.
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

/// An Enterprise organisation to be.
#[derive(Clone, Debug)]
pub struct Org {
    id: EnterpriseId,
    name: String,
    people: Vec<Person>,
    workspaces: Vec<Workspace>,
}

impl Org {
    /// An organisation of this id, `E…`, without workspaces.
    ///
    /// # Panics
    ///
    /// If it is no such id.
    #[must_use]
    pub fn new(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: EnterpriseId::new(id).expect("an organisation's id in a test is well formed"),
            name: name.into(),
            people: Vec::new(),
            workspaces: Vec::new(),
        }
    }

    /// Adds a person who is in all of its workspaces.
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

/// A workspace to be.
#[derive(Clone, Debug)]
pub struct Workspace {
    id: TeamId,
    name: String,
    people: Vec<Person>,
}

impl Workspace {
    /// A workspace of this id, `T…`, without people.
    ///
    /// # Panics
    ///
    /// If it is no such id.
    #[must_use]
    pub fn new(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: TeamId::new(id).expect("a workspace's id in a test is well formed"),
            name: name.into(),
            people: Vec::new(),
        }
    }

    /// Adds a person. Somebody who is in another workspace too keeps one set of flags: the last.
    #[must_use]
    pub fn with_person(mut self, person: Person) -> Self {
        self.people.push(person);
        self
    }
}

/// A person, with the flags that `users.info` shows.
///
/// The constructors make the usual kinds; set fields for others.
///
/// ```
/// use slack_installs::testing::Person;
///
/// let mut olga = Person::org_admin("W0ORGADM001", "olga");
/// olga.is_admin = true; // of her workspaces as well
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Person {
    /// Their id, `U…` or `W…`.
    pub id: UserId,
    /// Their name.
    pub name: String,
    /// Deactivated: cannot install, and `users.info` leaves out most flags.
    pub deleted: bool,
    /// The workspace of a person from elsewhere, who is seen in a shared channel only.
    pub home: Option<TeamId>,
    /// Admin of the workspace.
    pub is_admin: bool,
    /// Admin of the organisation; may install for all of it.
    pub is_org_admin: bool,
    /// Owner of the organisation; may install for all of it.
    pub is_org_owner: bool,
    /// Owner of the workspace.
    pub is_owner: bool,
    /// Primary owner of the workspace.
    pub is_primary_owner: bool,
    /// Guest.
    pub is_restricted: bool,
    /// Guest in a single channel.
    pub is_ultra_restricted: bool,
}

impl Person {
    /// A workspace's admin.
    ///
    /// # Panics
    ///
    /// If the id is no user id. So do the other constructors.
    #[must_use]
    pub fn admin(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_admin: true,
            ..Self::member(id, name)
        }
    }

    /// Somebody who has left: deactivated.
    #[must_use]
    pub fn deactivated(id: &str, name: impl Into<String>) -> Self {
        Self {
            deleted: true,
            ..Self::member(id, name)
        }
    }

    /// A guest in a single channel.
    #[must_use]
    pub fn guest(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_restricted: true,
            is_ultra_restricted: true,
            ..Self::member(id, name)
        }
    }

    /// A member without any rights.
    #[must_use]
    pub fn member(id: &str, name: impl Into<String>) -> Self {
        Self {
            id: UserId::new(id).expect("a user id in a test is well formed"),
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

    /// An admin of the organisation, who is a plain member of its workspaces.
    #[must_use]
    pub fn org_admin(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_org_admin: true,
            ..Self::member(id, name)
        }
    }

    /// An owner of a workspace, who is its admin too.
    #[must_use]
    pub fn owner(id: &str, name: impl Into<String>) -> Self {
        Self {
            is_owner: true,
            ..Self::admin(id, name)
        }
    }

    /// Somebody of another company's workspace, `T…`, seen through a shared channel. They cannot
    /// install here.
    #[must_use]
    pub fn stranger(id: &str, name: impl Into<String>, home: &str) -> Self {
        Self {
            home: Some(TeamId::new(home).expect("a workspace's id in a test is well formed")),
            ..Self::member(id, name)
        }
    }

    fn is_active(&self) -> bool {
        !self.deleted && self.home.is_none()
    }
}

/// Who acts, and where.
///
/// A plain user id acts in that person's first workspace.
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
    /// This person, in their first workspace.
    ///
    /// # Panics
    ///
    /// If it is no user id.
    #[must_use]
    pub fn user(id: &str) -> Self {
        Self {
            user: UserId::new(id).expect("a user id in a test is well formed"),
            place: None,
        }
    }

    /// In this workspace, `T…`, or for the whole of this organisation, `E…`.
    #[must_use]
    pub fn at(self, place: impl Into<String>) -> Self {
        Self {
            place: Some(place.into()),
            ..self
        }
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
