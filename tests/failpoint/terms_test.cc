// gofail's language: what it takes, what it refuses, and which term takes place when.
#include "conclave/server/failpoint/terms.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace conclave::failpoint {
namespace {

using ::testing::HasSubstr;

std::vector<Action> Evaluate(std::string_view text, int times) {
  auto terms = Terms::Parse(text);
  EXPECT_TRUE(terms.ok()) << text << ": " << terms.status();
  std::vector<Action> actions;
  Prng prng(1);
  for (int i = 0; i < times && terms.ok(); ++i) actions.push_back(terms->Evaluate(prng).action);
  return actions;
}

Duration SleepOf(std::string_view text) {
  auto terms = Terms::Parse(text);
  EXPECT_TRUE(terms.ok()) << text << ": " << terms.status();
  Prng prng(1);
  return terms.ok() ? terms->Evaluate(prng).sleep : Duration(-1);
}

TEST(TermsTest, EachActionIsUnderstood) {
  EXPECT_THAT(Evaluate("off", 1), ::testing::ElementsAre(Action::kOff));
  EXPECT_THAT(Evaluate("panic", 1), ::testing::ElementsAre(Action::kPanic));
  EXPECT_THAT(Evaluate("panic(\"why\")", 1), ::testing::ElementsAre(Action::kPanic));
  EXPECT_THAT(Evaluate("print", 1), ::testing::ElementsAre(Action::kPrint));
  for (const char* text : {"return", "return(true)", "return(5)", "return(\"text\")", "return()"}) {
    EXPECT_THAT(Evaluate(text, 1), ::testing::ElementsAre(Action::kReturn)) << text;
  }
}

TEST(TermsTest, SleepCountsMillisecondsOrTakesADuration) {
  EXPECT_EQ(SleepOf("sleep(100)"), std::chrono::milliseconds(100));
  EXPECT_EQ(SleepOf("sleep(\"1s\")"), std::chrono::seconds(1));
  EXPECT_EQ(SleepOf("sleep(\"1m30s\")"), std::chrono::seconds(90));
}

TEST(TermsTest, ACountRunsOutAndTheNextTermTakesOver) {
  EXPECT_THAT(Evaluate("2*print->1*return->panic", 5),
              ::testing::ElementsAre(Action::kPrint, Action::kPrint, Action::kReturn,
                                     Action::kPanic, Action::kPanic));
  EXPECT_THAT(Evaluate("1*panic", 2), ::testing::ElementsAre(Action::kPanic, Action::kOff));
  EXPECT_THAT(Evaluate("0*panic", 1), ::testing::ElementsAre(Action::kOff));
}

TEST(TermsTest, APercentageIsMetInTheLongRun) {
  for (const auto& [text, low, high] : std::vector<std::tuple<const char*, int, int>>{
           {"0%print", 0, 0}, {"100%print", 1000, 1000}, {"25.5%print", 200, 310}}) {
    const auto actions = Evaluate(text, 1000);
    const auto count = std::count(actions.begin(), actions.end(), Action::kPrint);
    EXPECT_GE(count, low) << text;
    EXPECT_LE(count, high) << text;
  }
}

TEST(TermsTest, BothModifiersHaveToAllowIt) {
  EXPECT_THAT(Evaluate("100%1*print", 2), ::testing::ElementsAre(Action::kPrint, Action::kOff));
}

TEST(TermsTest, EvaluationsCountWhatTookPlace) {
  auto terms = Terms::Parse("2*return");
  ASSERT_TRUE(terms.ok());
  Prng prng(1);
  for (int i = 0; i < 5; ++i) terms->Evaluate(prng);
  EXPECT_EQ(terms->evaluations(), 2u);
  EXPECT_EQ(terms->text(), "2*return");
}

TEST(TermsTest, AnythingElseIsRefused) {
  for (const char* text : {"",
                           "explode",
                           "sleep",
                           "sleep()",
                           "sleep(x)",
                           "sleep(\"x\")",
                           "sleep(-1)",
                           "sleep(1",
                           "sleep(\"1s)",
                           "sleep(\"999h\")",
                           "101%off",
                           "1.5*off",
                           "1off",
                           "*off",
                           "%off",
                           "off->",
                           "->off",
                           "off off",
                           "off)",
                           "return(1))",
                           "99999999999999999999*off"}) {
    EXPECT_FALSE(Terms::Parse(text).ok()) << text;
  }
  EXPECT_FALSE(Terms::Parse(std::string(kTermsBytesMax + 1, 'x')).ok());
  EXPECT_THAT(std::string(Terms::Parse("off->boom").status().message()), HasSubstr("\"boom\""));
}

}  // namespace
}  // namespace conclave::failpoint
