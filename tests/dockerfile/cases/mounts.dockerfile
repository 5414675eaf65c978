FROM alpine
RUN --mount=target=/src ls
RUN --mount=type=bind,from=build,source=/a,dst=/b,rw ls
RUN --mount=type=cache,id=x,target=/c,sharing=locked,mode=0755,uid=1,gid=2 ls
RUN --mount=type=tmpfs,target=/t,size=64m ls
RUN --mount=type=secret,id=s,required,env=TOKEN ls
RUN --mount=type=secret,id=s,target=/run/s,mode=0400 --mount=type=ssh ls
RUN --mount=type=$kind,target=$dest,mode=$mode,readonly=false ls
RUN --mount=type=bind,\"source=/a,b\",target=/x,readonly=0 ls
