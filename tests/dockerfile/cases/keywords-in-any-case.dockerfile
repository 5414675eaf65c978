from alpine aS one
Run echo
cMd x
  	LaBeL a=b
# comment
 # comment
COPY a b
