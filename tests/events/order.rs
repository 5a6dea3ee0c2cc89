//! Install, uninstall and reinstall, with Slack's events late, repeated, and in any order.

use super::*;
use crate::support::told::{Step, installed_and_uninstalled, orders, reinstall_lives};

#[tokio::test]
async fn a_reinstall_lives_however_long_before_it_the_uninstall_was() {
    for times in [(2, 0), (2, 2), (60, 2), (60, 10), (3600, 120), (3600, 3600)] {
        reinstall_lives(times, async || Life::new().await).await;
    }
}

#[tokio::test]
async fn an_uninstall_purges_in_whatever_order_and_however_often_it_is_told() {
    use Step::{TokensRevoked, Uninstalled};
    for after in [2, 60, 3600] {
        for order in orders(vec![TokensRevoked, TokensRevoked, Uninstalled, Uninstalled]) {
            let life = Life::new().await;
            let (revoked, uninstalled) = installed_and_uninstalled(&life, after).await;
            for step in &order {
                match step {
                    TokensRevoked => drop(life.handled(&revoked).await),
                    _ => drop(life.handled(&uninstalled).await),
                }
            }
            assert_eq!(life.slots(ALPHA).await, [""; 0], "{after} s, {order:?}");
            assert_eq!(life.host.tenants(), [ALPHA], "{after} s, {order:?}");
        }
    }
}
