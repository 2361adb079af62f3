//! What the terminal UI says, in both languages.

use meshlab_checks::Language;

use super::app::Action;

/// One of two texts.
pub(crate) fn word(language: Language, en: &'static str, ja: &'static str) -> &'static str {
    match language {
        Language::En => en,
        Language::Ja => ja,
    }
}

/// Keys and what they do, the most important first; the line of keys shows as many as fit.
pub(crate) fn keys(language: Language) -> Vec<(&'static str, &'static str)> {
    match language {
        Language::En => vec![
            ("?", "keys"),
            ("q", "quit"),
            ("r", "run"),
            ("a", "apply"),
            ("c", "check"),
            ("h", "hint"),
            ("n", "next"),
            ("s", "solution"),
            ("l", "list"),
            ("L", "日本語"),
            ("y", "copy"),
            ("w", "save"),
            ("/", "search"),
            ("p", "previous"),
            ("x", "reset"),
            ("t", "theme"),
        ],
        Language::Ja => vec![
            ("?", "キー"),
            ("q", "終了"),
            ("r", "実行"),
            ("a", "適用"),
            ("c", "検証"),
            ("h", "ヒント"),
            ("n", "次へ"),
            ("s", "解答"),
            ("l", "一覧"),
            ("L", "English"),
            ("y", "コピー"),
            ("w", "保存"),
            ("/", "検索"),
            ("p", "前へ"),
            ("x", "リセット"),
            ("t", "配色"),
        ],
    }
}

/// What is asked before something is done that cannot be taken back.
pub(crate) fn question(action: &Action, language: Language) -> &'static str {
    match (action, language) {
        (Action::Solve, Language::En) => "Write the solution and apply it? Your files are kept as *.bak. (y/n)",
        (Action::Solve, Language::Ja) => "解答を書き込んで適用しますか? 自分のファイルは *.bak に残ります。(y/n)",
        (_, Language::En) => "Bring this step back to its start? Your files are kept as *.bak. (y/n)",
        (_, Language::Ja) => "このステップを最初の状態に戻しますか? ファイルは *.bak に残ります。(y/n)",
    }
}

/// All keys.
pub(crate) fn help(language: Language) -> &'static str {
    word(
        language,
        "\
The text
  j k ↑ ↓  Space b  g G   scroll
  /                       search; / Enter again: the next place
  Tab  Shift-Tab          the next, the previous block of code
  r                       run the block marked ▶ in your folder
  y                       copy it (works over ssh, too)
  w                       save it as a file in your folder

The checks (run by themselves when a file is saved or the cluster changes)
  c                       check now
  J K  Enter              choose one, see it in full

The step
  a                       apply your files
  h                       the next hint (y there: copy its code)
  s                       the solution (a there: write and apply it)
  x                       back to the start of this step
  l  n  p                 list, next, previous step

  L  t                    日本語; theme: dark, light, no colours
  q  Ctrl-C               leave; the lab goes on",
        "\
本文
  j k ↑ ↓  Space b  g G   スクロール
  /                       検索。もう一度 / Enter で次の場所へ
  Tab  Shift-Tab          次、前のコードブロック
  r                       ▶ の付いたブロックを作業フォルダで実行
  y                       コピー（ssh 越しでも使えます）
  w                       作業フォルダにファイルとして保存

チェック（ファイルの保存やクラスタの変化で自動的に実行）
  c                       いますぐ検証
  J K  Enter              選ぶ、くわしく見る

ステップ
  a                       自分のファイルを適用
  h                       次のヒント（そこで y: コードをコピー）
  s                       解答（そこで a: 書き込んで適用）
  x                       このステップを最初の状態に戻す
  l  n  p                 一覧、次、前のステップ

  L  t                    English、配色（暗い、明るい、色なし）
  q  Ctrl-C               終了（ラボは動き続けます）",
    )
}
