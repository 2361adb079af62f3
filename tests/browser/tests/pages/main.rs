//! The pages as a learner sees them: in a browser, on a lab with traffic. Pictures of all of them are kept in `target/screenshots`.

mod lab;

use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use lab::{BrowsedLab, Forwarded, Traffic};
use meshlab_browser_tests::{Browser, Screen};

/// What the requests call themselves: it stands in access logs and traces, and must never be more than text.
const AGENT: &str = "<img src=x onerror=\"document.title='broken'\"><script>document.title='broken'</script>";
/// The API answers half of what webapp asks with an error of the proxy's own.
const FAULT: &str = "
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: fault, namespace: webapp}
spec:
  hosts: [api-service]
  http:
  - fault: {abort: {percentage: {value: 50}, httpStatus: 503}}
    route: [{destination: {host: api-service}}]
";
const TAB: char = '\u{e004}';
const ENTER: char = '\u{e007}';

/// The addons on this machine.
struct Addons {
    kiali: Forwarded,
    grafana: Forwarded,
    jaeger: Forwarded,
    prometheus: Forwarded,
}

#[tokio::test(flavor = "multi_thread")]
async fn the_pages_show_what_the_mesh_does() -> Result<()> {
    // Two browsers, since most of the time one waits: the mesh is scraped every five seconds.
    let (first, second, lab) = tokio::try_join!(Browser::start(), Browser::start(), BrowsedLab::start())?;
    let (kiali, grafana, jaeger, prometheus, gateway) = tokio::try_join!(
        lab.forward("kiali", 20001),
        lab.forward("grafana", 3000),
        lab.forward("tracing", 80),
        lab.forward("prometheus", 9090),
        lab.forward("istio-ingressgateway", 80),
    )?;
    let addons = Addons { kiali, grafana, jaeger, prometheus };
    let traffic = Traffic::start(&gateway.url, AGENT, 8)?;
    tokio::try_join!(first.look_with(Screen::WIDE), second.look_with(Screen::WIDE))?;

    let graph = async {
        an_empty_graph_tells_how_to_fill_it(&first, &addons).await?;
        padlocks_stand_for_mutual_tls(&first, &addons).await?;
        an_edge_turns_red_under_a_fault(&first, &addons, &lab).await
    };
    tokio::try_join!(graph, a_chart_follows_traffic(&second, &addons, &traffic))?;
    let (trace, ()) =
        tokio::try_join!(a_trace_opens_to_its_waterfall(&second, &addons), logs_explain_flags_and_stay_text(&first, &addons))?;
    let pages = pages(&addons, &trace);
    let (some, others) = pages.split_at(pages.len() / 2);
    tokio::try_join!(pictures(&first, some), pictures(&second, others))?;
    every_panel_of_the_control_plane_has_data(&first, &addons).await?;

    drop(traffic);
    tokio::try_join!(first.quit(), second.quit())?;
    lab.cluster.stop().await;
    Ok(())
}

async fn no_complaints(browser: &Browser) -> Result<()> {
    let complaints = browser.complaints().await?;
    ensure!(complaints.is_empty(), "{}", complaints.join("\n"));
    ensure!(browser.eval("document.title").await? != "broken", "text of traffic was run as code");
    Ok(())
}

async fn an_empty_graph_tells_how_to_fill_it(browser: &Browser, addons: &Addons) -> Result<()> {
    browser.open(&format!("{}/kiali/console/graph?namespaces=legacy&lang=en", addons.kiali.url)).await?;
    browser.wait("document.querySelector('.empty')?.innerText.includes('meshlab traffic')").await?;
    browser.press(TAB).await?;
    ensure!(browser.eval("document.activeElement.className").await? == "skip", "Tab does not lead to the skip link first");
    no_complaints(browser).await
}

/// Waits, on a page that is updated live, for healthy traffic over mutual TLS that moves.
async fn padlocks_stand_for_mutual_tls(browser: &Browser, addons: &Addons) -> Result<()> {
    browser.open(&format!("{}/kiali/console/graph?duration=30s&lang=en", addons.kiali.url)).await?;
    browser.wait("document.querySelector('#live-state')?.dataset.state === 'live'").await?;
    browser
        .wait(
            "document.querySelector('.wide .edge.healthy[data-key*=\"/webapp/\"][data-key*=\"/api/\"]') && \
             document.querySelectorAll('.wide .tag.healthy .padlock').length >= 3",
        )
        .await?;
    ensure!(browser.eval("!document.querySelector('.edge.failure')").await? == true, "something fails without a fault");
    let moving = "getComputedStyle(document.querySelector('.wide .moving')).display";
    ensure!(browser.eval(moving).await? != "none", "traffic does not move");
    browser.look_with(Screen::WIDE.still()).await?;
    ensure!(browser.eval(moving).await? == "none", "traffic moves for those who want nothing to move");
    browser.look_with(Screen::WIDE).await?;
    no_complaints(browser).await
}

/// The rate of requests that the mesh dashboard shows follows the rate at which they are sent.
async fn a_chart_follows_traffic(browser: &Browser, addons: &Addons, traffic: &Traffic) -> Result<()> {
    browser.open(&format!("{}/d/mesh?lang=en", addons.grafana.url)).await?;
    let shown = "(() => { const row = [...document.querySelectorAll('[data-key=requests_by_destination] .legend li')]
        .find((row) => row.innerText.includes('webapp-v1')); return row ? parseFloat(row.querySelector('.last').innerText) : 0 })()";
    let before = browser.wait(shown).await?.as_f64().unwrap_or_default();
    ensure!(browser.eval("document.querySelector('.chart path.line').getAttribute('d').length > 0").await? == true, "no line");
    traffic.set_rate(40);
    browser.wait(&format!("{shown} > {}", before * 1.5)).await?;
    traffic.set_rate(8);
    no_complaints(browser).await?;
    // So do the explorer's chart and the values below it; Enter runs what is in the box.
    browser.open(&format!("{}/explore?query=up&lang=en", addons.grafana.url)).await?;
    browser.eval("(document.querySelector('textarea').value = 'sum(istio_requests_total)', document.querySelector('textarea').focus())").await?;
    browser.press(ENTER).await?;
    browser
        .wait(
            "location.search.includes('istio_requests_total') && document.querySelector('#live-state')?.dataset.state === 'live'",
        )
        .await?;
    let now = "document.querySelector('.chart path.line').getAttribute('d') + document.querySelector('td.number').innerText";
    let shown = browser.eval(now).await?;
    browser.wait(&format!("{now} !== {shown}")).await?;
    no_complaints(browser).await
}

async fn an_edge_turns_red_under_a_fault(browser: &Browser, addons: &Addons, lab: &BrowsedLab) -> Result<()> {
    browser.open(&format!("{}/kiali/console/graph?duration=30s&lang=en", addons.kiali.url)).await?;
    ensure!(browser.eval("!document.querySelector('.edge.failure')").await? == true, "something fails before the fault");
    lab.apply("fault.yaml", FAULT).await?;
    let red = ".wide .edge.failure[data-key*=\"/webapp/\"][data-key*=\"/api-service/\"]";
    browser.wait(&format!("document.querySelector('{red} .moving.error')")).await?;
    let color = browser.eval(&format!("getComputedStyle(document.querySelector('{red} .way')).stroke")).await?;
    ensure!(color == "rgb(200, 38, 58)", "the failing edge is not red but {color}");
    browser.open(&format!("{}/kiali/console/overview?lang=en", addons.kiali.url)).await?;
    browser.wait(&some_says(".notes li", "Fault injection aborted")).await?;
    no_complaints(browser).await
}

/// Whether an element that `selector` finds has this text.
fn some_says(selector: &str, text: &str) -> String {
    format!("[...document.querySelectorAll('{selector}')].some((found) => found.innerText.includes('{text}'))")
}

async fn logs_explain_flags_and_stay_text(browser: &Browser, addons: &Addons) -> Result<()> {
    browser.open(&format!("{}/kiali/console/logs?only=errors&lang=en", addons.kiali.url)).await?;
    browser.wait(&some_says(".log details", "Fault injection aborted")).await?;
    browser.open(&format!("{}/kiali/console/logs?text=onerror&lang=en", addons.kiali.url)).await?;
    browser.click(".log summary").await?;
    browser.wait("document.querySelector('.log details[open] .fields')?.innerText.includes('<img src=x')").await?;
    ensure!(browser.eval("document.querySelector('main img')").await?.is_null(), "text of traffic became an element");
    // An update leaves open what the reader has opened.
    browser.eval("document.querySelector('[data-key=counts]').textContent = 'old'").await?;
    browser.wait("document.querySelector('[data-key=counts]').textContent !== 'old'").await?;
    ensure!(browser.eval("document.querySelectorAll('.log details[open]').length").await? == 1, "an update closes details");
    browser.click(".languages a[lang=ja]").await?;
    browser.wait("document.documentElement.lang === 'ja' && location.search.includes('text=onerror')").await?;
    no_complaints(browser).await
}

/// Returns the address of the trace.
async fn a_trace_opens_to_its_waterfall(browser: &Browser, addons: &Addons) -> Result<String> {
    browser.open(&format!("{}/jaeger/search?service=payment.webapp&lang=en", addons.jaeger.url)).await?;
    browser.click(".traces a").await?;
    browser
        .wait("document.querySelectorAll('.waterfall details').length >= 4 && document.querySelector('.waterfall .critical')")
        .await?;
    browser.click(".waterfall summary").await?;
    browser.wait("document.querySelector('.waterfall details[open] .fields')?.innerText.includes('istio.mesh_id')").await?;
    no_complaints(browser).await?;
    Ok(browser.eval("location.href").await?.as_str().unwrap_or_default().split('?').next().unwrap_or_default().to_owned())
}

/// Name and address, up to the language, of every page.
fn pages(addons: &Addons, trace: &str) -> Vec<(&'static str, String)> {
    let Addons { kiali, grafana, jaeger, prometheus } = addons;
    let (kiali, grafana, jaeger, prometheus) = (&kiali.url, &grafana.url, &jaeger.url, &prometheus.url);
    vec![
        ("overview", format!("{kiali}/kiali/console/overview?")),
        ("graph", format!("{kiali}/kiali/console/graph?duration=60s&")),
        ("access-logs", format!("{kiali}/kiali/console/logs?only=errors&")),
        ("dashboards", format!("{grafana}/dashboards?")),
        ("dashboard-mesh", format!("{grafana}/d/mesh?")),
        ("dashboard-service", format!("{grafana}/d/service?value=webapp-service&")),
        ("dashboard-workload", format!("{grafana}/d/workload?value=webapp-v1&")),
        ("dashboard-performance", format!("{grafana}/d/performance?")),
        ("dashboard-control-plane", format!("{grafana}/d/control-plane?")),
        ("explorer", format!("{grafana}/explore?query=sum+by+(destination_workload)(rate(istio_requests_total[1m]))&")),
        ("prometheus-query", format!("{prometheus}/query?query=up&")),
        ("prometheus-targets", format!("{prometheus}/targets?")),
        ("trace-search", format!("{jaeger}/jaeger/search?service=webapp.webapp&")),
        ("trace", format!("{trace}?")),
    ]
}

/// Takes pictures of pages in light, dark, narrow and Japanese; nothing may have to be scrolled sideways.
async fn pictures(browser: &Browser, pages: &[(&str, String)]) -> Result<()> {
    let folder = screenshots()?;
    for (name, url) in pages {
        browser.look_with(Screen::WIDE).await?;
        browser.open(&format!("{url}lang=ja")).await?;
        picture(browser, &folder, name, "japanese").await?;
        browser.open(&format!("{url}lang=en")).await?;
        for (look, screen) in [("light", Screen::WIDE), ("dark", Screen::WIDE.dark()), ("narrow", Screen::NARROW)] {
            browser.look_with(screen).await?;
            picture(browser, &folder, name, look).await?;
        }
        no_complaints(browser).await?;
    }
    Ok(())
}

/// istiod really has what the panels ask for.
async fn every_panel_of_the_control_plane_has_data(browser: &Browser, addons: &Addons) -> Result<()> {
    browser.open(&format!("{}/d/control-plane?lang=en", addons.grafana.url)).await?;
    let empty =
        "[...document.querySelectorAll('.panel .nothing, .panel .bad')].map((text) => text.closest('.panel').innerText).join()";
    let empty = browser.eval(empty).await?;
    ensure!(empty == "", "panels without data: {empty}");
    Ok(())
}

async fn picture(browser: &Browser, folder: &Path, name: &str, look: &str) -> Result<()> {
    ensure!(
        browser.eval("!document.querySelector('.trouble')").await? == true,
        "{name}: {}",
        browser.eval("document.body.innerText").await?
    );
    let widths = browser.eval("[document.documentElement.scrollWidth, innerWidth]").await?;
    ensure!(widths[0].as_u64() <= widths[1].as_u64(), "{name} must be scrolled sideways when it is {look}: {widths}");
    browser.screenshot(&folder.join(format!("{name}-{look}.png"))).await
}

/// `target/screenshots`.
fn screenshots() -> Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    std::fs::create_dir_all(&folder)?;
    Ok(folder)
}
