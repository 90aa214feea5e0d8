"""Ed25519 signatures (RFC 8032 section 5.1) without a package: a table of the base point's doublings makes one take about 2 ms."""

import hashlib

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493
D = -121665 * pow(121666, -1, P) % P


def added(one, other):
    """The sum of two points in extended coordinates (section 5.1.4)."""
    a = (one[1] - one[0]) * (other[1] - other[0]) % P
    b = (one[1] + one[0]) * (other[1] + other[0]) % P
    c = 2 * one[3] * other[3] * D % P
    d = 2 * one[2] * other[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return e * f % P, g * h % P, f * g % P, e * h % P


def base_point():
    y = 4 * pow(5, -1, P) % P
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    x = x if x % 2 == 0 else P - x
    return x, y, 1, x * y % P


DOUBLINGS = [base_point()]
while len(DOUBLINGS) < 255:
    DOUBLINGS.append(added(DOUBLINGS[-1], DOUBLINGS[-1]))


def multiplied(scalar):
    """The base point, so many times, as 32 bytes."""
    point = (0, 1, 1, 0)
    for bit, doubling in enumerate(DOUBLINGS):
        if scalar >> bit & 1:
            point = added(point, doubling)
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def number(*parts):
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


class Key:
    def __init__(self, seed):
        digest = hashlib.sha512(seed).digest()
        self.seed, self.prefix = seed, digest[32:]
        self.scalar = int.from_bytes(digest[:32], "little") & (1 << 254) - 8 | 1 << 254
        self.public = multiplied(self.scalar)

    def sign(self, message):
        nonce = number(self.prefix, message) % ORDER
        point = multiplied(nonce)
        answer = (nonce + number(point, self.public, message) * self.scalar) % ORDER
        return point + answer.to_bytes(32, "little")
