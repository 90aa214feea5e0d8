"""A user service as teams have one: FastAPI, passwords hashed by Argon2, HS256 tokens by python-jose that have neither `iss` nor `aud`
and one `role`. It prints a line with its port, and one for each question that it is asked.

Users are `name:password:role:permission,permission` arguments; the secret comes from JWT_SECRET_KEY.
"""

import os
import socket
import sys
import time
from typing import Annotated

import ends_with_parent
import uvicorn
from argon2 import PasswordHasher
from argon2.exceptions import VerifyMismatchError
from fastapi import Depends, FastAPI, HTTPException
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from jose import JWTError, jwt
from pydantic import BaseModel

SECRET = os.environ["JWT_SECRET_KEY"]
LIFETIME = int(os.environ.get("TOKEN_LIFETIME", "900"))

hasher = PasswordHasher(time_cost=2, memory_cost=19456, parallelism=1)
app = FastAPI()
bearer = HTTPBearer(auto_error=False)
users = {}


class Login(BaseModel):
    username: str
    password: str


class Check(BaseModel):
    permission: str
    service: str | None = None


def say(text: str) -> None:
    print(text, flush=True)


def current(credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(bearer)]) -> dict:
    refused = HTTPException(401, "Could not validate credentials", {"WWW-Authenticate": "Bearer"})
    if credentials is None:
        raise refused
    try:
        claims = jwt.decode(credentials.credentials, SECRET, algorithms=["HS256"])
    except JWTError:
        raise refused from None
    user = users.get(claims.get("sub"))
    if user is None or not user["is_active"]:
        raise refused
    return user


Current = Annotated[dict, Depends(current)]


@app.post("/auth/login")
def login(form: Login) -> dict:
    user = next((user for user in users.values() if user["name"] == form.username), None)
    try:
        if user is None:
            raise VerifyMismatchError
        hasher.verify(user["hashed_password"], form.password)
    except VerifyMismatchError:
        raise HTTPException(401, "Incorrect username or password") from None
    now = int(time.time())
    claims = {"sub": str(user["id"]), "role": user["role"], "iat": now, "exp": now + LIFETIME}
    return {"access_token": jwt.encode(claims, SECRET, algorithm="HS256"), "token_type": "bearer"}


@app.get("/auth/userinfo")
def userinfo(user: Current) -> dict:
    say(f"userinfo {user['name']}")
    return {key: user[key] for key in ("id", "name", "email", "role", "is_active")}


@app.post("/auth/check-permission")
def check_permission(check: Check, user: Current) -> dict:
    allowed = check.permission in user["permissions"]
    say(f"check {user['name']} {check.permission} in {check.service}: {allowed}")
    return {"allowed": allowed, "permission": check.permission}


@app.post("/users/{number}/deactivate")
def deactivate(number: int) -> dict:
    users[str(number)]["is_active"] = False
    return {}


def main() -> None:
    ends_with_parent.watch()
    for number, argument in enumerate(sys.argv[1:], start=1):
        name, password, role, permissions = argument.split(":", 3)
        users[str(number)] = {
            "id": number,
            "name": name,
            "email": f"{name}@example.com",
            "role": role,
            "permissions": [code.replace(".", ":") for code in permissions.split(",")],
            "hashed_password": hasher.hash(password),
            "is_active": True,
        }
    listening = socket.create_server(("127.0.0.1", int(os.environ.get("PORT", "0"))))
    say(f"port {listening.getsockname()[1]}")
    # Its access log would say what is said above.
    config = uvicorn.Config(app, log_level="warning", access_log=False)
    uvicorn.Server(config).run(sockets=[listening])


main()
