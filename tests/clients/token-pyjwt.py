"""PyPI `PyJWT`: prints tokens as a backend in Python makes them, one in each line: a name, a space, the token."""

import sys
import time

import jwt

key, user = sys.argv[1], "42"
topics = {"subscribe": ["user/42"], "publish": ["in/*"]}
# A float, as `time.time()` gives it.
claims = {"sub": user, "exp": time.time() + 600, **topics}
mercure = {"mercure": topics, "exp": int(time.time()) + 600}

print("right", jwt.encode(claims, key))
print("right-mercure", jwt.encode(mercure, key, algorithm="HS256"))
print("right-kid", jwt.encode(claims, key, headers={"kid": "main"}))
print("right-at", jwt.encode(claims, key, headers={"typ": "at+jwt"}))
print("wrong-none", jwt.encode(claims, None, algorithm="none"))
print("wrong-hs384", jwt.encode(claims, key, algorithm="HS384"))
print("wrong-hs512", jwt.encode(claims, key, algorithm="HS512"))
print("wrong-key", jwt.encode(claims, key + "x"))
print("wrong-expired", jwt.encode({**claims, "exp": int(time.time()) - 61}, key))
print("wrong-endless", jwt.encode({"subscribe": ["*"]}, key))
