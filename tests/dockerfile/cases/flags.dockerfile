FROM alpine
COPY --link --parents --chown=1:1 --chmod=u=rwx,go=r --exclude=*.md --exclude='!x y' a b /c/
COPY --link=false --from=0 a /b
ADD --checksum=sha256:abc --keep-git-dir=true --unpack=false https://example.com/x.tar /x
ADD a b
COPY -- --weird /dest
RUN --network=none --security=sandbox echo hi
RUN -- --not-a-flag
COPY --chown="a b":c x /y
