FROM alpine
# café
LABEL x=café
LABEL y=Ã©
