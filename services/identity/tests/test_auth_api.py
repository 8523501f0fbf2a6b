"""Logging in, refreshing, logging out, changing the password."""


from clinic_identity.app import service  # noqa: F401


async def test_the_administrator_logs_in_and_sees_who_they_are(network) -> None:
    session = await network.session_of("admin@example.org", "only-for-these-tests")
    me = await network.with_token("GET", "/v1/me", session["access_token"])
    assert me.status_code == 200, me.text
    assert me.json()["roles"] == ["system-administrator"]
