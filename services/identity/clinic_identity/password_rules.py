"""What a new password must not be, with what we know of its owner."""

from clinic_shared.context import Context

from clinic_identity import store
from clinic_identity.desk import Desk
from clinic_identity.domain import Account, check_password


async def require_good_password(desk: Desk, context: Context, account: Account, password: str) -> None:
    """Raises WeakPasswordError."""
    async with desk.database.transaction(context) as tx:
        member = await store.find_staff(tx, account.account_id)
    names = (member.family, member.given, member.patronymic) if member else ()
    check_password(
        password,
        kind=account.kind,
        login=account.login,
        context=[desk.settings.site_name, *(name for name in names if name)],
        breached=desk.breached,
    )
