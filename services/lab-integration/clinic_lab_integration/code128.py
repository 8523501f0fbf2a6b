"""Code 128 (ISO/IEC 15417), set B: letters and digits as bars, with a check character."""

_PATTERNS = [
    "212222",
    "222122",
    "222221",
    "121223",
    "121322",
    "131222",
    "122213",
    "122312",
    "132212",
    "221213",
    "221312",
    "231212",
    "112232",
    "122132",
    "122231",
    "113222",
    "123122",
    "123221",
    "223211",
    "221132",
    "221231",
    "213212",
    "223112",
    "312131",
    "311222",
    "321122",
    "321221",
    "312212",
    "322112",
    "322211",
    "212123",
    "212321",
    "232121",
    "111323",
    "131123",
    "131321",
    "112313",
    "132113",
    "132311",
    "211313",
    "231113",
    "231311",
    "112133",
    "112331",
    "132131",
    "113123",
    "113321",
    "133121",
    "313121",
    "211331",
    "231131",
    "213113",
    "213311",
    "213131",
    "311123",
    "311321",
    "331121",
    "312113",
    "312311",
    "332111",
    "314111",
    "221411",
    "431111",
    "111224",
    "111422",
    "121124",
    "121421",
    "141122",
    "141221",
    "112214",
    "112412",
    "122114",
    "122411",
    "142112",
    "142211",
    "241211",
    "221114",
    "413111",
    "241112",
    "134111",
    "111242",
    "121142",
    "121241",
    "114212",
    "124112",
    "124211",
    "411212",
    "421112",
    "421211",
    "212141",
    "214121",
    "412121",
    "111143",
    "111341",
    "131141",
    "114113",
    "114311",
    "411113",
    "411311",
    "113141",
    "114131",
    "311141",
    "411131",
    "211412",
    "211214",
    "211232",
    "2331112",
]
_START_B, _STOP, _MODULO = 104, 106, 103
_FIRST, _LAST = ord(" "), ord("~")


def bars(text: str) -> list[tuple[int, int]]:
    """Return the dark bars as (position, width), in modules. Raises ValueError for what set B lacks."""
    if not all(_FIRST <= ord(character) <= _LAST for character in text):
        raise ValueError("only printable ASCII has bars")
    values = [ord(character) - _FIRST for character in text]
    check = (_START_B + sum(place * value for place, value in enumerate(values, 1))) % _MODULO
    found, position = [], 0
    for symbol in (_START_B, *values, check, _STOP):
        for number, width in enumerate(map(int, _PATTERNS[symbol])):
            if number % 2 == 0:
                found.append((position, width))
            position += width
    return found


def width(text: str) -> int:
    """Return how many modules the bars take."""
    last, modules = bars(text)[-1]
    return last + modules
