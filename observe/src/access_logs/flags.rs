//! Envoy's response flags, and the details of a response, in words.
//! <https://www.envoyproxy.io/docs/envoy/latest/configuration/observability/access_log/usage>

use crate::pages::Language;

/// What a flag means.
pub(crate) struct Flag {
    pub(crate) short: &'static str,
    /// Envoy's long name.
    pub(crate) long: &'static str,
    ja: &'static str,
    en: &'static str,
}

impl Flag {
    /// In words.
    pub(crate) fn meaning(&self, language: Language) -> &'static str {
        match language {
            Language::Ja => self.ja,
            Language::En => self.en,
        }
    }
}

/// The flag with this short name.
pub(crate) fn flag(short: &str) -> Option<&'static Flag> {
    FLAGS.iter().find(|flag| flag.short == short)
}

macro_rules! flags {
    ($($short:literal $long:literal $ja:literal $en:literal)*) => {
        /// All that the proxies of the mesh set.
        pub(crate) const FLAGS: &[Flag] = &[$(Flag { short: $short, long: $long, ja: $ja, en: $en }),*];
    };
}

flags! {
    "NR" "NoRouteFound"
        "ルートが見つかりません。ホスト名・パス・ヘッダーが VirtualService に一致するか、Gateway の hosts を確認してください。"
        "No route matches. Look at the hosts of the Gateway, and at host, path and headers in the VirtualService."
    "NC" "NoClusterFound"
        "ルートの行き先がありません。VirtualService の host と subset が Service と DestinationRule にあるか確認してください。"
        "The route leads nowhere. Look whether host and subset of the VirtualService exist as Service and DestinationRule."
    "UH" "NoHealthyUpstream"
        "健全なエンドポイントがありません。Pod が Ready か、subset のラベルが合うか、外れ値検出で除外されていないかを確認してください。"
        "No healthy endpoint. Are the pods ready, do the subset's labels match, or has outlier detection ejected them all?"
    "UF" "UpstreamConnectionFailure"
        "宛先に接続できませんでした。ポート、プロセス、TLS モードの食い違い（片方だけ mTLS）を疑ってください。"
        "No connection to the destination. Suspect the port, the process, or TLS modes that differ (mutual TLS on one side only)."
    "UO" "UpstreamOverflow"
        "サーキットブレーカーが開いています。DestinationRule の connectionPool の上限に達しました。"
        "The circuit breaker is open: a limit of the DestinationRule's connectionPool is reached."
    "UT" "UpstreamRequestTimeout"
        "宛先が時間内に応答しませんでした。VirtualService の timeout が切れました。"
        "The destination took too long: the timeout of the VirtualService has passed."
    "UC" "UpstreamConnectionTermination"
        "宛先が応答の前に接続を閉じました。"
        "The destination closed the connection before it had answered."
    "UR" "UpstreamRemoteReset"
        "宛先がストリームをリセットしました。"
        "The destination reset the stream."
    "URX" "UpstreamRetryLimitExceeded"
        "リトライ（TCP では接続の試行）を使い切りました。"
        "All retries (of TCP: all attempts to connect) are used up."
    "DC" "DownstreamConnectionTermination"
        "クライアントが応答を待たずに去りました。クライアントのタイムアウトが短いのかもしれません。"
        "The client left before the answer came. Its own timeout may be shorter."
    "DI" "DelayInjected"
        "fault injection の遅延が加えられました。"
        "Fault injection delayed the request."
    "FI" "FaultInjected"
        "fault injection の中断です。このステータスはプロキシが作り、アプリケーションには届いていません。"
        "Fault injection aborted the request: the proxy made up this status, the application was never asked."
    "RL" "RateLimited"
        "レート制限を超えました。"
        "The rate limit is exceeded."
    "UAEX" "UnauthorizedExternalService"
        "外部の認可サービスが拒否しました。"
        "The external authorizer denied it."
    "LH" "FailedLocalHealthCheck"
        "ヘルスチェックに失敗しました。"
        "The local health check failed."
    "LR" "LocalReset"
        "このプロキシがストリームをリセットしました。"
        "This proxy reset the stream."
    "SI" "StreamIdleTimeout"
        "長い間データが流れず、ストリームが閉じられました。"
        "Nothing moved for too long, and the stream was closed."
    "DPE" "DownstreamProtocolError"
        "クライアントが HTTP の決まりを破りました。平文と TLS の取り違えでも起きます。"
        "The client broke the protocol. Plaintext sent where TLS is spoken looks like this, too."
    "UPE" "UpstreamProtocolError"
        "宛先が HTTP の決まりを破りました。ポート名（http-、grpc-、tcp-）が実際のプロトコルと合うか確認してください。"
        "The destination broke the protocol. Does the port's name (http-, grpc-, tcp-) tell what it really speaks?"
}

/// What `%RESPONSE_CODE_DETAILS%` says, in words: who made the response, and why.
pub(super) fn details(details: &str, code: u16, language: Language) -> Option<&'static str> {
    let text = |ja, en| if language == Language::Ja { ja } else { en };
    let begins = |start: &str| details.starts_with(start);
    Some(match () {
        () if begins("via_upstream") && code >= 500 => text(
            "このステータスは宛先のアプリケーション（またはその先のプロキシ）が返しました。このプロキシは通しただけです。",
            "The application at the other end (or a proxy beyond) answered so; this proxy only passed it on.",
        ),
        () if begins("via_upstream") && code >= 400 => text(
            "宛先が返したステータスです。このプロキシは通しただけです。",
            "The destination answered so; this proxy only passed it on.",
        ),
        () if begins("rbac_access_denied") => text(
            "AuthorizationPolicy が拒否しました。角かっこの中が一致したポリシーです（none は、どの ALLOW にも一致しなかったこと）。",
            "An AuthorizationPolicy denied it. In brackets is the policy that matched; none means that no ALLOW did.",
        ),
        () if begins("jwt_authn_access_denied") => {
            text("RequestAuthentication が JWT を拒否しました。", "RequestAuthentication refused the token (JWT).")
        }
        () if begins("ext_authz_denied") => text("外部の認可サービスが拒否しました。", "The external authorizer denied it."),
        () if begins("direct_response") => text(
            "VirtualService の directResponse またはリダイレクトです。",
            "A directResponse or redirect of the VirtualService.",
        ),
        () if begins("filter_chain_not_found") => text(
            "接続に合うフィルターチェーンがありません。mTLS が STRICT のところへ平文で来た、または SNI が合いません。",
            "No filter chain takes this connection: plaintext where mutual TLS is STRICT, or a server name that nobody has.",
        ),
        () => return None,
    })
}
