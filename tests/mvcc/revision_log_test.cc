#include "conclave/server/mvcc/revision_log.h"

#include <gtest/gtest.h>

#include <map>

#include "conclave/base/prng.h"

namespace conclave::mvcc {
namespace {

TEST(RevisionLog, AgreesWithAMapWhateverIsRemoved) {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    SCOPED_TRACE(testing::Message() << "seed " << seed);
    Prng prng(seed);
    RevisionLog log;
    std::map<Revision, RecordRef> model;
    Revision last{1, 0};
    const uint64_t gap = prng.Between(1, 1000);
    for (int round = 0; round < 8; ++round) {
      for (uint64_t n = prng.Below(3000); n > 0; --n) {
        last = prng.Chance(1, 3) ? Revision{last.main, last.sub + 1}
                                 : Revision{last.main + prng.Between(1, gap), 0};
        RecordRef record = MakeRecord({.key = "k", .value = {}, .revision = last, .version = 1});
        log.Append(record.get());
        model.emplace(last, std::move(record));
      }
      // Thin out some stretch of it, sometimes to nothing.
      const uint64_t keep_one_in = prng.Between(1, 20);
      const int64_t end = prng.Below(last.main + 2);
      for (auto it = model.begin(); it != model.end() && it->first.main < end;) {
        if (prng.Chance(1, keep_one_in)) {
          ++it;
          continue;
        }
        log.Remove(it->first);
        it = model.erase(it);
      }
      log.CheckInvariants();
      ASSERT_EQ(log.size(), model.size());
      for (int i = 0; i < 200; ++i) {
        const Revision from{static_cast<int64_t>(prng.Below(last.main + 2)),
                            static_cast<int64_t>(prng.Below(4))};
        const auto expected = model.lower_bound(from);
        const Record* first = log.First(from);
        ASSERT_EQ(first, expected == model.end() ? nullptr : expected->second.get());
      }
      auto expected = model.begin();
      log.ForEach({0, 0}, [&](const Record& record) {
        EXPECT_EQ(&record, expected->second.get());
        ++expected;
        return true;
      });
      ASSERT_EQ(expected, model.end());
    }
  }
}

}  // namespace
}  // namespace conclave::mvcc
