//! An uninstall and a reinstall, and Slack's events about them in every order.

use slack_installs::testing::Delivery;

use crate::support::app::{ADA, ALPHA, BEN};
use crate::support::life::Life;

/// Installs, uninstalls and reinstalls, with so many seconds between the steps. Delivers Slack's
/// events about them in every order.
pub(crate) async fn reinstall_lives((first, second): (u64, u64), live: impl AsyncFn() -> Life) {
    use Step::{Reinstall, TokensRevoked, Uninstalled};
    let steps = vec![
        Reinstall,
        TokensRevoked,
        TokensRevoked,
        Uninstalled,
        Uninstalled,
    ];
    let orders = orders(steps);
    assert_eq!(orders.len(), 30);
    for order in &orders {
        let life = live().await;
        let (revoked, uninstalled) = installed_and_uninstalled(&life, first).await;
        life.advance(second);
        for step in order {
            match step {
                Reinstall => life.install(BEN).await,
                TokensRevoked => drop(life.handled(&revoked).await),
                Uninstalled => drop(life.handled(&uninstalled).await),
            }
        }
        let case = format!("{first} s, {second} s, {order:?}");
        let token = life.app.fake.bot_token(ALPHA).expect("it is installed");
        assert_eq!(
            life.bot_token(ALPHA).await.as_deref(),
            Some(token.expose()),
            "{case}"
        );
        assert!(life.user_token(ALPHA, BEN).await.is_some(), "{case}");
        assert_eq!(life.user_token(ALPHA, ADA).await, None, "{case}");
        assert_eq!(
            life.slots(ALPHA).await,
            ["bot", "install", &format!("user/{BEN}")]
        );
        // The application is notified once, if the uninstall was handled before the reinstall.
        let seen = order.iter().position(|step| *step == Uninstalled)
            < order.iter().position(|step| *step == Reinstall);
        assert_eq!(life.host.tenants().len(), usize::from(seen), "{case}");
    }
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Step {
    Reinstall,
    TokensRevoked,
    Uninstalled,
}

/// Returns every order of these steps, each once.
pub(crate) fn orders(mut steps: Vec<Step>) -> Vec<Vec<Step>> {
    steps.sort_unstable();
    let mut all = vec![Vec::new()];
    for _ in 0..steps.len() {
        all = all
            .into_iter()
            .flat_map(|begun: Vec<Step>| {
                let mut left = steps.clone();
                for step in &begun {
                    let at = left.iter().position(|other| other == step);
                    left.remove(at.expect("the value was taken from the list"));
                }
                left.dedup();
                left.into_iter()
                    .map(move |step| [begun.clone(), vec![step]].concat())
            })
            .collect();
    }
    all
}

/// Installs as Ada, and uninstalls as an admin so many seconds later. Returns Slack's deliveries.
pub(crate) async fn installed_and_uninstalled(life: &Life, after: u64) -> (Delivery, Delivery) {
    life.install(ADA).await;
    life.advance(after);
    assert!(life.app.fake.uninstall(ALPHA));
    let events = life.app.fake.take_events();
    let [revoked, uninstalled] = <[Delivery; 2]>::try_from(events).expect("two events");
    (revoked, uninstalled)
}
