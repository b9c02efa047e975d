"""A session of test_session.py in a bucket, as a process that can be killed.

python bucket_child.py gs://bucket/run
"""

import sys

import test_session

if __name__ == "__main__":
  test_session.run(sys.argv[1])
