"""The second page of a login: whatever the account has can be shown here. Only a passkey takes a script."""

import json
from dataclasses import dataclass
from html import escape

from fastapi.responses import HTMLResponse

from clinic_identity import html_page
from clinic_identity.factors import Method
from clinic_identity.second_step import Offer

_ORDER = (Method.PASSKEY, Method.TOTP, Method.SMS, Method.RECOVERY_CODE)
_CODE_LABELS = {
    Method.TOTP: "Code of your authenticator app",
    Method.SMS: "Code from the text message",
    Method.RECOVERY_CODE: "Recovery code",
}
REFUSED = {
    Method.TOTP: "The code isn't right, or was used before. Take the app's next one.",
    Method.SMS: "The code isn't right, or too old. Only the newest one counts.",
    Method.RECOVERY_CODE: "The code isn't right, or was used before.",
    Method.PASSKEY: "The passkey wasn't accepted. Try again, or begin again.",
}
_OVER = (
    "<p>It took longer than five minutes, or too many codes were wrong."
    " Nothing has happened to your account.</p>"
)
# Members by hand: not every browser that knows passkeys converts them from and to JSON.
_SCRIPT = """
"use strict";
const form = document.getElementById("passkey-form");
const button = form.querySelector("button");
const problem = document.getElementById("passkey-problem");
const bytes = (text) =>
  Uint8Array.from(atob(text.replace(/-/g, "+").replace(/_/g, "/")), (one) => one.charCodeAt(0));
const text = (buffer) =>
  btoa(String.fromCharCode(...new Uint8Array(buffer))).replace(/\\+/g, "-").replace(/\\//g, "_").replace(/=+$/, "");
const shown = async () => {
  const options = JSON.parse(form.dataset.options);
  options.challenge = bytes(options.challenge);
  for (const one of options.allowCredentials ?? []) one.id = bytes(one.id);
  const made = await navigator.credentials.get({ publicKey: options });
  const answer = made.response;
  return JSON.stringify({
    id: made.id,
    rawId: text(made.rawId),
    type: made.type,
    response: {
      clientDataJSON: text(answer.clientDataJSON),
      authenticatorData: text(answer.authenticatorData),
      signature: text(answer.signature),
      ...(answer.userHandle ? { userHandle: text(answer.userHandle) } : {}),
    },
  });
};
form.addEventListener("submit", async (event) => {
  event.preventDefault();
  button.disabled = true;
  problem.hidden = true;
  try {
    form.elements.credential.value = await shown();
    form.submit();
  } catch (error) {
    problem.hidden = false;
    button.disabled = false;
    button.focus();
  }
});
addEventListener("pageshow", () => { button.disabled = false; });
if (window.PublicKeyCredential) {
  form.hidden = false;
  document.getElementById("passkey-unknown").hidden = true;
  button.focus();
}
"""


@dataclass(frozen=True, kw_only=True)
class SecondStep:
    """What a login waits for. `code_sent`: a text message is on its way."""

    action: str
    ticket: str
    offer: Offer
    code_sent: bool = False

    def page(
        self, *, form_action: str, way_back: str, complaint: str = "", status: int = 200
    ) -> HTMLResponse:
        """Ask for one of what the account has."""
        rest = f'<p><a href="{escape(self.action)}">Begin again</a></p>{way_back}'
        if not self.offer.methods:
            return html_page.page("This login is over", _OVER + rest, status=status, form_action=form_action)
        parts = [self._part(method) for method in _ORDER if method in self.offer.methods]
        choice = "<p>One of these is enough.</p>" if len(parts) > 1 else ""
        content = f"{html_page.alert(complaint)}{choice}{''.join(parts)}{rest}"
        script = _SCRIPT if Method.PASSKEY in self.offer.methods else ""
        return html_page.page("One more step", content, status=status, form_action=form_action, script=script)

    def _part(self, method: Method) -> str:
        match method:
            case Method.PASSKEY:
                return self._passkey()
            case Method.SMS:
                return self._text_message()
            case _:
                return self._code(method, focus=method is Method.TOTP)

    def _passkey(self) -> str:
        options = escape(json.dumps(self.offer.passkey))
        form = self._form(
            Method.PASSKEY,
            '<input type="hidden" name="credential">'
            '<p id="passkey-problem" role="alert" hidden>The passkey wasn\'t used. Try again when you are ready.</p>'
            "<button>Use your passkey</button>",
            f' id="passkey-form" data-options="{options}" hidden',
        )
        return (
            f'{form}<p id="passkey-unknown">Your passkey can\'t be used here: this browser runs no scripts, or knows'
            " no passkeys.</p>"
        )

    def _code(self, method: Method, *, focus: bool) -> str:
        digits = method is not Method.RECOVERY_CODE
        return self._form(
            method,
            f'<label for="{method.value}">{_CODE_LABELS[method]}</label>'
            f'<input id="{method.value}" name="code" maxlength="64" autocomplete="{"one-time-code" if digits else "off"}"'
            f' inputmode="{"numeric" if digits else "text"}" required{" autofocus" if focus else ""}>'
            "<button>Go on</button>",
        )

    def _text_message(self) -> str:
        if not self.code_sent:
            asked = '<button name="send" value="true" autofocus>Send me a code</button>'
            return "<p>We send a code to the phone number that you confirmed.</p>" + self._form(
                Method.SMS, asked
            )
        again = '<button class="other" name="send" value="true">Send another code</button>'
        return (
            '<p role="status">The code comes by text message, and works for five minutes.</p>'
            f"{self._code(Method.SMS, focus=True)}{self._form(Method.SMS, again)}"
        )

    def _form(self, method: Method, content: str, attributes: str = "") -> str:
        return (
            f'<form method="post" action="{escape(self.action)}"{attributes}>'
            f'<input type="hidden" name="ticket" value="{escape(self.ticket)}">'
            f'<input type="hidden" name="method" value="{method.value}">{content}</form>'
        )
