//! The words of an explanation, in both languages.

use meshlab_checks::Language;

/// What a line is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Label {
    Client,
    Listener,
    Host,
    Passed,
    Route,
    Policy,
    Fault,
    Cluster,
    Attempt,
    Answer,
}

impl Label {
    pub(super) fn text(self, language: Language) -> &'static str {
        let (en, ja) = match self {
            Self::Client => ("client", "接続元"),
            Self::Listener => ("listener", "リスナー"),
            Self::Host => ("virtual host", "仮想ホスト"),
            Self::Passed => ("not taken", "不採用"),
            Self::Route => ("route", "ルート"),
            Self::Policy => ("policy", "ポリシー"),
            Self::Fault => ("fault", "障害注入"),
            Self::Cluster => ("cluster", "クラスター"),
            Self::Attempt => ("attempt", "送信"),
            Self::Answer => ("answer", "応答"),
        };
        pick(language, en, ja)
    }
}

pub(super) fn pick<'a>(language: Language, en: &'a str, ja: &'a str) -> &'a str {
    match language {
        Language::En => en,
        Language::Ja => ja,
    }
}

/// What kind of proxy a hop is.
pub(super) fn direction(direction: &str, language: Language) -> &str {
    match direction {
        "gateway" => pick(language, "gateway", "ゲートウェイ"),
        "outbound" => pick(language, "the client's sidecar, outbound", "クライアント側サイドカー、送信"),
        "inbound" => pick(language, "the server's sidecar, inbound", "サーバー側サイドカー、受信"),
        other => other,
    }
}

/// Envoy's response flags.
pub(super) fn flag(flag: &str, language: Language) -> Option<&'static str> {
    let (en, ja) = match flag {
        "UH" => ("no healthy endpoint", "正常なエンドポイントがない"),
        "UT" => ("the upstream took too long", "アップストリームがタイムアウトした"),
        "LR" => ("reset by this proxy", "このプロキシがリセットした"),
        "UR" => ("reset by the upstream", "アップストリームがリセットした"),
        "UF" => ("no connection to the upstream", "アップストリームに接続できない"),
        "UC" => ("the upstream closed the connection", "アップストリームが接続を閉じた"),
        "UO" => ("a circuit breaker is open", "サーキットブレーカーが開いている"),
        "NR" => ("no route fits", "一致するルートがない"),
        "DI" => ("a delay was injected", "遅延が注入された"),
        "FI" => ("an abort was injected", "エラーが注入された"),
        "RL" => ("rate limited", "レート制限された"),
        "UAEX" => ("denied by the external authorizer", "外部認可サービスに拒否された"),
        "DC" => ("the client went away", "クライアントが切断した"),
        "URX" => ("retries are used up", "再試行の上限に達した"),
        "SI" => ("the stream was idle for too long", "ストリームがアイドルのままタイムアウトした"),
        "DPE" => ("the client broke the protocol", "クライアントのプロトコル違反"),
        "UPE" => ("the upstream broke the protocol", "アップストリームのプロトコル違反"),
        "NC" => ("the route's cluster does not exist", "ルートの宛先クラスターが存在しない"),
        _ => return None,
    };
    Some(pick(language, en, ja))
}

/// Who ended the request, where the response code details say so.
pub(super) fn details(details: &str, language: Language) -> Option<&'static str> {
    let (en, ja) = match details {
        "via_upstream" => ("from upstream", "アップストリームの応答"),
        "route_not_found" => ("no route fits", "一致するルートがない"),
        "direct_response" => ("answered by the route itself", "ルート自身が応答した"),
        "fault_filter_abort" => ("an injected fault", "注入された障害"),
        "no_healthy_upstream" => ("no healthy endpoint", "正常なエンドポイントがない"),
        "cluster_not_found" => ("the route's cluster does not exist", "ルートの宛先クラスターが存在しない"),
        "response_timeout" | "upstream_response_timeout" => ("the upstream took too long", "アップストリームがタイムアウトした"),
        _ if details.starts_with("rbac_access_denied") => ("denied by authorization policies", "認可ポリシーにより拒否"),
        _ if details.starts_with("jwt_authn_access_denied") => ("the token was refused", "トークンが拒否された"),
        _ if details.starts_with("upstream_reset_before_response_started") => {
            ("the connection to the upstream broke", "アップストリームとの接続が切れた")
        }
        _ => return None,
    };
    Some(pick(language, en, ja))
}
