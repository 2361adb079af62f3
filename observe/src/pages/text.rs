//! What the pages say, in Japanese and English.

use std::collections::BTreeMap;
use std::sync::LazyLock;

use http::{HeaderMap, header};

use super::{Query, parameter};

/// A language of the pages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Ja,
    En,
}

type Texts = BTreeMap<&'static str, &'static str>;

/// Name, Japanese, English.
const TEXTS: &[(&str, &str, &str)] = &[
    ("all_namespaces", "すべての Namespace", "All namespaces"),
    ("apply", "表示", "Show"),
    ("chart", "グラフ", "Chart"),
    ("control_plane", "コントロールプレーン", "Control plane"),
    ("critical_path", "クリティカルパス", "Critical path"),
    ("dashboards", "ダッシュボード", "Dashboards"),
    ("duration", "所要時間", "Duration"),
    (
        "empty_graph",
        "この時間に通信はありません。アプリケーションにリクエストを送ってください。",
        "There was no traffic in this time. Send requests to the application.",
    ),
    ("errors", "エラー", "errors"),
    ("error_rate", "エラー率", "Error share"),
    ("explore", "メトリクスを調べる", "Explore metrics"),
    ("from", "から", "From"),
    ("graph", "サービスグラフ", "Service graph"),
    ("last", "期間", "Last"),
    ("last_error", "最後のエラー", "Last error"),
    ("last_scrape", "最後の収集", "Last scrape"),
    ("live_lost", "接続が切れました。再接続しています…", "The connection is lost. Trying again…"),
    ("min_duration", "最小の所要時間", "Least duration"),
    ("mtls", "相互 TLS", "Mutual TLS"),
    ("namespace", "Namespace", "Namespace"),
    ("no_data", "データがありません", "No data"),
    ("no_traces", "条件に合うトレースはありません。", "No trace matches."),
    ("of_memory", "保存中", "In memory"),
    ("dropped", "捨てたもの", "Dropped"),
    ("operation", "操作", "Operation"),
    ("overview", "概要", "Overview"),
    (
        "picture_help",
        "矢印の太さは通信量、赤はエラー、錠は相互 TLS を表します。",
        "Thick arrows carry more, red ones fail, a padlock stands for mutual TLS.",
    ),
    ("protocol", "プロトコル", "Protocol"),
    ("query", "クエリ", "Query"),
    ("rate", "リクエスト/秒", "Requests/s"),
    ("result", "結果", "Result"),
    ("run", "実行", "Run"),
    ("search", "検索", "Search"),
    ("service", "サービス", "Service"),
    ("span", "スパン", "Span"),
    ("spans", "スパン", "spans"),
    ("start", "開始", "Start"),
    ("state", "状態", "State"),
    ("table", "表", "Table"),
    ("tags", "タグ", "Tags"),
    ("targets", "収集対象", "Targets"),
    ("to", "へ", "To"),
    ("trace", "トレース", "Trace"),
    ("trouble", "問題が起きました", "Something went wrong"),
    ("value", "値", "Value"),
    ("versions", "バージョン", "Versions"),
    ("back", "戻る", "Back"),
    ("workload", "ワークロード", "Workload"),
    ("all", "すべて", "All"),
    ("seconds", "秒", "seconds"),
    ("minutes", "分", "minutes"),
    ("requests_by_destination", "宛先ごとのリクエスト", "Requests by destination"),
    ("success_rate", "成功率 (5xx 以外)", "Success rate (not 5xx)"),
    ("responses_by_code", "応答コードごとのリクエスト", "Requests by response code"),
    ("latency_p50", "所要時間 (50 パーセンタイル)", "Duration (50th percentile)"),
    ("latency_p95", "所要時間 (95 パーセンタイル)", "Duration (95th percentile)"),
    ("latency_p99", "所要時間 (99 パーセンタイル)", "Duration (99th percentile)"),
    ("mtls_share", "相互 TLS の割合", "Share over mutual TLS"),
    ("requests_by_source", "送信元ごとのリクエスト", "Requests by source"),
    ("inbound", "受信リクエスト", "Inbound requests"),
    ("outbound", "送信リクエスト", "Outbound requests"),
    ("flags", "応答フラグごとのリクエスト", "Requests by response flags"),
    ("tcp_sent", "TCP 送信", "TCP sent"),
    ("tcp_received", "TCP 受信", "TCP received"),
    ("response_bytes", "応答のバイト数", "Bytes of responses"),
    ("request_bytes", "リクエストのバイト数", "Bytes of requests"),
    ("scrape_samples", "収集したサンプル", "Samples scraped"),
    ("scrape_time", "収集にかかった時間", "Time of scrapes"),
    ("series", "時系列の数", "Time series"),
    ("pushes", "設定の配信", "Configuration pushes"),
    ("convergence", "配信完了までの時間 (95 パーセンタイル)", "Time to converge (95th percentile)"),
    ("proxies", "接続中のプロキシー", "Connected proxies"),
    ("rejects", "拒否された設定", "Rejected configuration"),
    ("injections", "サイドカーの注入", "Sidecar injections"),
    ("resources", "サービスと VirtualService", "Services and VirtualServices"),
    ("mesh", "メッシュ", "Mesh"),
    ("performance", "性能", "Performance"),
    ("versions_compared", "バージョンごとのリクエスト", "Requests by version"),
];

static JA: LazyLock<Texts> = LazyLock::new(|| TEXTS.iter().map(|(name, ja, _)| (*name, *ja)).collect());
static EN: LazyLock<Texts> = LazyLock::new(|| TEXTS.iter().map(|(name, _, en)| (*name, *en)).collect());

impl Language {
    /// `?lang=` decides, else the first language of `Accept-Language` that there is, else English.
    pub(crate) fn of(query: &Query, headers: &HeaderMap) -> Self {
        let accepted = headers.get(header::ACCEPT_LANGUAGE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let known = |tag: &str| match tag.trim().get(..2) {
            Some("ja") => Some(Self::Ja),
            Some("en") => Some(Self::En),
            _ => None,
        };
        parameter(query, "lang").and_then(known).or_else(|| accepted.split(',').find_map(known)).unwrap_or(Self::En)
    }

    pub(crate) fn code(self) -> &'static str {
        match self {
            Self::Ja => "ja",
            Self::En => "en",
        }
    }

    /// All texts by name.
    pub(crate) fn texts(self) -> &'static Texts {
        match self {
            Self::Ja => &JA,
            Self::En => &EN,
        }
    }

    /// The text called `name`; the name itself if there is none.
    pub(crate) fn text(self, name: &'static str) -> &'static str {
        self.texts().get(name).copied().unwrap_or(name)
    }
}
