//! `Impersonate-*` headers: `kubectl --as`.

use http::HeaderMap;
use meshlab_objects::Status;
use percent_encoding::percent_decode_str;

use super::{Action, UserInfo};
use crate::api::Api;

const EXTRA: &str = "impersonate-extra-";

impl Api {
    /// The user that a request is made as.
    ///
    /// # Errors
    /// 403 where the caller may not be that user, 400 where groups or the like come without a user.
    pub(crate) fn impersonate(&self, user: UserInfo, headers: &HeaderMap) -> Result<UserInfo, Status> {
        if !headers.keys().any(|name| name.as_str().starts_with("impersonate-")) {
            return Ok(user);
        }
        let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let name = text("impersonate-user");
        if name.is_empty() {
            return Err(Status::bad_request(
                "requested impersonation of groups, a UID or extra fields without impersonating a user",
            ));
        }
        let mut wanted = match name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) {
            Some((namespace, account)) => UserInfo::service_account(namespace, account),
            None => UserInfo { name: name.to_owned(), ..UserInfo::default() },
        };
        let mut checks = vec![match name.strip_prefix("system:serviceaccount:").and_then(|account| account.split_once(':')) {
            Some((namespace, account)) => check("", "serviceaccounts", "", namespace, account),
            None => check("", "users", "", "", name),
        }];
        let groups: Vec<String> =
            headers.get_all("impersonate-group").iter().filter_map(|value| value.to_str().ok()).map(str::to_owned).collect();
        checks.extend(groups.iter().map(|group| check("", "groups", "", "", group)));
        if !groups.is_empty() {
            wanted.groups = groups;
        }
        if !text("impersonate-uid").is_empty() {
            text("impersonate-uid").clone_into(&mut wanted.uid);
            checks.push(check("authentication.k8s.io", "uids", "", "", &wanted.uid));
        }
        for (header, value) in headers {
            let Some(key) = header.as_str().strip_prefix(EXTRA) else { continue };
            let key = percent_decode_str(key).decode_utf8_lossy().into_owned();
            let value = value.to_str().unwrap_or_default().to_owned();
            checks.push(check("authentication.k8s.io", "userextras", &key, "", &value));
            wanted.extra.entry(key).or_default().push(value);
        }
        for action in checks {
            if !self.authorizer.decide(&self.store, &user, &action).allowed {
                return Err(action.refusal(&user));
            }
        }
        let belongs = if name == "system:anonymous" { "system:unauthenticated" } else { "system:authenticated" };
        if !wanted.groups.iter().any(|group| group == belongs) {
            wanted.groups.push(belongs.to_owned());
        }
        Ok(wanted)
    }
}

fn check(group: &str, resource: &str, subresource: &str, namespace: &str, name: &str) -> Action {
    let [group, resource, subresource, namespace, name] = [group, resource, subresource, namespace, name].map(str::to_owned);
    Action { verb: "impersonate".into(), group, resource, subresource, namespace, name, ..Action::default() }
}
