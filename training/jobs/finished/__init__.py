"""Finished trainings that are not published yet, kept where every worker reaches them: nobody trains twice."""
